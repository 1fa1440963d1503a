"""Locks in Redis: a hash, a queue and its waiters each; see ``lua/lock_*.lua``."""

from __future__ import annotations

from dotmac.tasks.errors import LockLost

from ..records import LockGrant, LockQueued, LockRecord, LockRequest
from .commands import Argument
from .core import MICROSECONDS, RedisCore, micros, verb
from .scripts import load

_REQUEST, _EXTEND, _FREE = load("lock_request"), load("lock_extend"), load("lock_free")


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
        reply = await self.client.run(_REQUEST, [*partition.lock(request.name), partition.held], args)
        if reply[0] == b"granted":
            return LockGrant(reply[1], reply[2] / MICROSECONDS)
        return LockQueued(reply[1], max(reply[2], 0) / MICROSECONDS)

    @verb
    async def extend_lock(self, name: str, token: str, lease: float) -> float:
        """See `LockStore`."""
        partition = self.layout.of_key(name)
        keys = [partition.lock(name)[0], partition.held]
        until: int = await self.client.run(_EXTEND, keys, [name, token, micros(lease)])
        if not until:
            raise LockLost(f"the lock {name!r} is not held any more")
        return until / MICROSECONDS

    @verb
    async def free_lock(self, name: str, token: str) -> bool:
        """See `LockStore`."""
        partition = self.layout.of_key(name)
        return bool(await self.client.run(_FREE, [*partition.lock(name), partition.held], [name, token]))

    @verb
    async def list_locks(self, limit: int) -> list[LockRecord]:
        """See `LockStore`."""
        found: list[LockRecord] = []
        lowest = micros(self.now())
        for partition in self.layout.partitions:
            held = partition.held
            await self.client.execute("ZREMRANGEBYSCORE", held, "-inf", lowest, key=held, repeatable=True)
            names = await self.client.execute("ZRANGE", held, 0, limit - 1, key=held, repeatable=True)
            for raw in names:
                lock, queue, _ = partition.lock(raw.decode())
                fields = await self.client.execute("HGETALL", lock, key=lock, repeatable=True)
                waiters = await self.client.execute("ZCARD", queue, key=queue, repeatable=True)
                if b"tok" in fields:
                    found.append(_lock(raw.decode(), fields, waiters))
        return sorted(found, key=lambda lock: lock.name)[:limit]


def _lock(name: str, fields: dict[bytes, bytes], waiters: int) -> LockRecord:
    return LockRecord(
        name=name,
        owner=fields[b"own"].decode(),
        token=fields[b"tok"].decode(),
        fence=int(fields[b"f"]) - int(fields[b"n"]) + 1,
        since=int(fields[b"s"]) / MICROSECONDS,
        until=int(fields[b"u"]) / MICROSECONDS,
        waiters=waiters,
    )
