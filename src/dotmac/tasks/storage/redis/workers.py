"""Worker leases in Redis: one sorted set of all workers by the end of their lease."""

from __future__ import annotations

import msgspec

from dotmac.tasks.errors import OwnershipLost

from ...jsonvalue import encode
from ..records import MICROSECONDS, Renewal, WorkerRecord
from .core import RedisCore, micros, verb
from .scripts import load

_REGISTER, _RENEW = load("worker_register"), load("worker_renew")
_RETIRE, _FORGET = load("worker_retire"), load("worker_forget")

_info_of = msgspec.json.Decoder(dict[str, str]).decode


class RedisWorkers(RedisCore):
    """See `WorkerStore`."""

    @verb
    async def register_worker(self, worker_id: str, lease: float, info: dict[str, str]) -> float:
        """See `WorkerStore`."""
        keys = [self.layout.leases, self.layout.infos]
        at: int = await self.client.run(_REGISTER, keys, [worker_id, micros(lease), encode(info)])
        return self.tell_time(at)

    @verb
    async def renew_worker(self, worker_id: str, lease: float, info: dict[str, str] | None = None) -> Renewal:
        """See `WorkerStore`."""
        keys = [self.layout.leases, self.layout.cancels(worker_id), self.layout.infos]
        reply = await self.client.run(_RENEW, keys, [worker_id, micros(lease), b"" if info is None else encode(info)])
        if not reply:
            raise OwnershipLost(f"the lease of worker {worker_id} is over")
        return Renewal(self.tell_time(reply[0]), sorted(saga_id.decode() for saga_id in reply[1]))

    @verb
    async def retire_worker(self, worker_id: str) -> bool:
        """See `WorkerStore`."""
        return bool(await self.client.run(_RETIRE, [self.layout.leases], [worker_id]))

    async def registered_workers(self) -> list[WorkerRecord]:
        """All workers that have a lease, over or not."""
        leases = await self.client.execute(
            "ZRANGE", self.layout.leases, 0, -1, "WITHSCORES", key=self.layout.leases, repeatable=True
        )
        if not leases:
            return []
        infos = await self.client.execute("HGETALL", self.layout.infos, key=self.layout.infos, repeatable=True)
        return [worker_record(name, float(score), infos.get(name)) for name, score in leases]

    async def forget_worker(self, worker_id: str) -> None:
        """Forget a lost worker that owns nothing any more."""
        keys = [self.layout.leases, self.layout.infos, self.layout.cancels(worker_id)]
        await self.client.run(_FORGET, keys, [worker_id])


def worker_record(name: bytes, until: float, info: bytes | None) -> WorkerRecord:
    """A worker as it is stored: its lease in microseconds, its start and what it registered with."""
    started, _, details = (info or b"0 {}").partition(b" ")
    try:
        return WorkerRecord(name.decode(), float(started) / MICROSECONDS, until / MICROSECONDS, _info_of(details))
    except (ValueError, msgspec.MsgspecError):
        # Its lease and its sagas count all the same: a worker whose description is damaged is a worker.
        return WorkerRecord(name.decode(errors="replace"), 0.0, until / MICROSECONDS)
