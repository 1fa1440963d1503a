"""Locks in Redis: a hash, a queue and its waiters each; see ``lua/lock_*.lua``."""

from __future__ import annotations

import itertools

from dotmac.tasks.errors import LockLost, StoredDataUnreadable

from ..records import MICROSECONDS, LockGrant, LockQueued, LockRecord, LockRequest, LockState, LockWaiting
from .commands import Argument
from .core import RedisCore, fields_of, micros, verb
from .layout import Partition
from .scripts import load
from .together import all_at_once

_LOOKED_AT = 100  # locks at a time
_calls = itertools.count()

_REQUEST, _EXTEND, _FREE, _LOOK = load("lock_request"), load("lock_extend"), load("lock_free"), load("lock_look")


class RedisLocks(RedisCore):
    """See `LockStore`."""

    @verb
    async def request_lock(self, request: LockRequest) -> LockGrant | LockQueued:
        """See `LockStore`."""
        partition = self.layout.of_key(request.name)
        args: list[Argument] = [
            request.name,
            request.token,
            micros(request.lease),
            request.owner,
            b"" if request.wait is None else micros(request.wait),
            self.layout.channel(request.topic),
            request.fences,
            request.instead_of or b"",
        ]
        reply = await self.client.run(
            _REQUEST, [*partition.lock(request.name), partition.held], args, slot=partition.slot
        )
        if reply[0] == b"granted":
            return LockGrant(reply[1], reply[2] / MICROSECONDS)
        return LockQueued(reply[1], max(reply[2], 0) / MICROSECONDS)

    @verb
    async def extend_lock(self, name: str, token: str, lease: float) -> float:
        """See `LockStore`."""
        partition = self.layout.of_key(name)
        keys = [partition.lock(name)[0], partition.held]
        until: int = await self.client.run(_EXTEND, keys, [name, token, micros(lease)], slot=partition.slot)
        if not until:
            raise LockLost(f"the lock {name!r} is not held any more")
        return until / MICROSECONDS

    @verb
    async def free_lock(self, name: str, token: str) -> bool:
        """See `LockStore`."""
        partition = self.layout.of_key(name)
        keys = [*partition.lock(name), partition.held]
        call = f"{token} {next(_calls)}"
        return bool(await self.client.run(_FREE, keys, [name, token, call], slot=partition.slot))

    @verb
    async def look_at_lock(self, name: str, limit: int) -> LockState:
        """See `LockStore`."""
        keys = self.layout.of_key(name).lock(name)
        flat, queue, waiters = await self.client.run(_LOOK, keys, [limit], durable=False)
        fields = fields_of(flat)
        held = _lock(name, fields, waiters) if b"tok" in fields else None
        return LockState(held, [_waiter(line) for line in queue], waiters)

    @verb
    async def list_locks(self, limit: int) -> list[LockRecord]:
        """See `LockStore`."""
        await self.forget_ended_locks()

        async def held_in(partition: Partition) -> list[bytes]:
            names: list[bytes] = await self.client.execute(
                "ZRANGE", partition.held, 0, -1, key=partition.held, repeatable=True
            )
            return names

        parts = await all_at_once(held_in, list(self.layout.partitions))
        names = sorted([name.decode() for part in parts for name in part])
        found: list[LockRecord] = []
        while names and len(found) < limit:
            locks = await all_at_once(self._listed, names[:_LOOKED_AT])
            found += [lock for lock in locks if lock is not None]
            del names[:_LOOKED_AT]
        return found[:limit]

    async def forget_ended_locks(self) -> None:
        """Take locks whose lease is over out of the list of those that are held."""
        before = micros(self.now())

        async def forget(partition: Partition) -> None:
            held = partition.held
            await self.client.execute("ZREMRANGEBYSCORE", held, "-inf", before, key=held, repeatable=True)

        await all_at_once(forget, list(self.layout.partitions))

    async def _listed(self, name: str) -> LockRecord | None:
        lock, queue, _ = self.layout.of_key(name).lock(name)
        fields = await self.client.execute("HGETALL", lock, key=lock, repeatable=True)
        waiters = await self.client.execute("ZCARD", queue, key=queue, repeatable=True)
        return _lock(name, fields, waiters) if b"tok" in fields else None


def _waiter(line: bytes) -> LockWaiting:
    head, _, owner = line.partition(b"\n")
    until, since, _ = head.split(b" ", 2)
    return LockWaiting(owner.decode(), int(since) / MICROSECONDS, int(until) / MICROSECONDS)


def _lock(name: str, fields: dict[bytes, bytes], waiters: int) -> LockRecord:
    try:
        return LockRecord(
            name=name,
            owner=fields[b"own"].decode(),
            token=fields[b"tok"].decode(),
            fence=int(fields[b"f"]) - int(fields[b"n"]) + 1,
            since=int(fields[b"s"]) / MICROSECONDS,
            until=int(fields[b"u"]) / MICROSECONDS,
            waiters=waiters,
        )
    except (KeyError, ValueError) as error:
        raise StoredDataUnreadable(f"the lock {name!r} cannot be read: {error!r}") from error
