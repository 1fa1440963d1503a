"""Finding sagas in Redis: due ones, orphans, lists, and what is past its retention.

Each partition is asked by itself, all at once; the gateway makes one write of it. Lists come from an index sorted by
name in which every saga stands under several names (all, its tenant, its type, its status), and ids sort by time.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from heapq import merge
from typing import TypeVar

import trio

from dotmac.tasks.models import OperationStatus

from ..ids import ids_made
from ..records import MICROSECONDS, SAGA_STATUSES, AdoptableSaga, Purged, SagaFilter, SagaMeta, SagaPage, WorkerRecord
from .core import micros, verb
from .decoding import listed_meta
from .layout import SEPARATOR, Partition
from .quiet import QuietPartitions
from .sagas import RedisSagas
from .scripts import load
from .together import all_at_once
from .waiting import MOST_WAITING, count_waiting, waiting_names
from .workers import RedisWorkers

_DUE, _FORGET, _OWNERS = load("saga_due"), load("saga_forget"), load("saga_owners")
_MOST_DUE = 1000
_MOST_WAITING = 10_000  # in each partition
_CHUNK = 200
T = TypeVar("T")


class RedisSearch(RedisSagas, RedisWorkers):
    """The part of `SagaStore` that looks through partitions."""

    def __init__(self) -> None:
        super().__init__()
        self._nothing_due = QuietPartitions()
        self._owners_read_at = -math.inf

    def look_anew(self) -> None:
        """Forget where nothing was found: another server, maybe, and another clock."""
        self._nothing_due.clear()
        self._owners_read_at = -math.inf

    @verb
    async def due_sagas(self, limit: int, *, max_age: float = 0.0) -> list[AdoptableSaga]:
        """See `SagaStore`."""
        now, quiet = self.now(), self._nothing_due

        async def due(partition: Partition) -> list[bytes]:
            most, asked_at = max(limit, _MOST_DUE), trio.current_time()
            found: list[bytes] | bytes = await self.client.run(_DUE, [partition.due], [most], durable=False)
            if isinstance(found, list):
                quiet.forget(partition)
                return found
            quiet.note(partition, asked_at, float(found) / MICROSECONDS if found else math.inf)
            return []

        loud = [partition for partition in self.layout.partitions if not quiet.is_quiet(partition, max_age, now)]
        found = [saga_id.decode() for ids in await all_at_once(due, loud) for saga_id in ids]
        return await self._adoptable(found, limit, lambda meta: meta.owner is None)

    @verb
    async def missing_handlers(self) -> dict[str, int]:
        """See `SagaStore`. Where many thousand sagas wait, the figures are those of the first ones."""
        found = await self._everywhere(lambda partition: waiting_names(self.client, partition, MOST_WAITING))
        return count_waiting(name for names in found for name in names)

    @verb
    async def waiting_sagas(self, waits_for: str, limit: int) -> list[AdoptableSaga]:
        """See `SagaStore`."""
        name = waits_for.encode()
        parts = await self._everywhere(lambda partition: waiting_names(self.client, partition, limit, name))
        found = [each.rpartition(SEPARATOR)[2].decode() for names in parts for each in names]
        return await self._adoptable(found, limit, lambda meta: meta.owner is None and meta.waits_for == waits_for)

    @verb
    async def orphaned_sagas(self, worker_id: str, limit: int) -> list[AdoptableSaga]:
        """See `SagaStore`."""
        start = worker_id.encode() + SEPARATOR

        async def owned(partition: Partition) -> list[bytes]:
            found: list[bytes] = await self.client.execute(
                "ZRANGEBYLEX", partition.owned, b"[" + start, b"(" + start + b"\xff", "LIMIT", 0, limit,
                key=partition.owned, repeatable=True,
            )  # fmt: skip
            return found

        names = [name for part in await self._everywhere(owned) for name in part]
        # Priority stands before the id in the name, upside down, so names sort as sagas should be adopted.
        found = [name.rpartition(SEPARATOR)[2].decode() for name in sorted(names)[:limit]]
        return await self._adoptable(found, limit, lambda meta: meta.owner == worker_id)

    @verb
    async def list_workers(self, *, max_age: float = 0.0) -> list[WorkerRecord]:
        """See `WorkerStore`. Lost workers that own nothing any more are forgotten on the way."""
        if trio.current_time() < self._owners_read_at + max_age:
            known = await self.registered_workers()
            if all(worker.lease_until > self.now() for worker in known):
                return sorted(known, key=lambda worker: worker.worker_id)

        async def owners_in(partition: Partition) -> list[bytes]:
            owners: list[bytes] = await self.client.run(_OWNERS, [partition.owned], durable=False)
            return owners

        self._owners_read_at = trio.current_time()
        owners = {name.decode() for names in await self._everywhere(owners_in) for name in names}
        # Read after the owners, so that a worker that registers and creates in between is not taken for a lost one.
        registered = {worker.worker_id: worker for worker in await self.registered_workers()}
        for worker_id, worker in tuple(registered.items()):
            if worker.lease_until <= self.now() and worker_id not in owners:
                await self.forget_worker(worker_id)
                del registered[worker_id]
        late = [WorkerRecord(worker_id, 0.0, 0.0) for worker_id in owners - registered.keys()]
        return sorted([*registered.values(), *late], key=lambda worker: worker.worker_id)

    @verb
    async def count_sagas(self) -> dict[OperationStatus, int]:
        """See `SagaStore`."""
        names = {status: _index_prefix(SagaFilter(status=status)) for status in SAGA_STATUSES}

        async def counted(partition: Partition) -> list[int]:
            async def count(name: bytes) -> int:
                number: int = await self.client.execute(
                    "ZLEXCOUNT", partition.index, b"(" + name, b"(" + name + b"\xff",
                    key=partition.index, repeatable=True,
                )  # fmt: skip
                return number

            return await all_at_once(count, list(names.values()))

        sums = [sum(column) for column in zip(*await self._everywhere(counted), strict=True)]
        counts = dict(zip(names, sums, strict=True))
        # Completed sagas stand in the index without their status: what was counted for them is all sagas.
        others = sum(counts.values()) - counts[OperationStatus.COMPLETED]
        counts[OperationStatus.COMPLETED] = max(counts[OperationStatus.COMPLETED] - others, 0)
        return counts

    @verb
    async def list_sagas(self, where: SagaFilter, limit: int, cursor: str | None = None) -> SagaPage:
        """See `SagaStore`."""
        prefix = _index_prefix(where)
        lowest, highest = ids_made(where.created_after, where.created_before)
        cursor = min((bound for bound in (cursor, highest) if bound is not None), default=None)
        page: list[SagaMeta] = []
        while True:
            ids = await self._newest(prefix, cursor, _CHUNK)
            for meta in await self._metas(ids):
                if meta is not None and where.matches(meta):
                    if len(page) == limit:
                        return SagaPage(page, page[-1].saga_id)
                    page.append(meta)
            if len(ids) < _CHUNK or ids[-1] < lowest:
                return SagaPage(page, None)
            cursor = ids[-1]

    @verb
    async def purge(self, limit: int) -> Purged:
        """See `StorageProtocol`. Idempotency records are removed by the server itself."""
        now = micros(self.now())

        async def expired(partition: Partition) -> list[bytes]:
            ids: list[bytes] = await self.client.execute(
                "ZRANGEBYSCORE", partition.expiry, "-inf", now, "LIMIT", 0, limit,
                key=partition.expiry, repeatable=True,
            )  # fmt: skip
            return ids

        pairs = zip(self.layout.partitions, await self._everywhere(expired), strict=True)
        found = [(partition, saga_id) for partition, ids in pairs for saga_id in ids]

        async def forget(item: tuple[Partition, bytes]) -> int:
            partition, raw = item
            keys = [
                partition.saga(raw),
                partition.journal(raw),
                partition.notes(raw),
                partition.index,
                partition.expiry,
                partition.snapshot(raw),
            ]
            removed: int = await self.client.run(_FORGET, keys, [raw])
            return removed

        removed = sum(await all_at_once(forget, found[:limit]))
        # Where nothing could be removed, all that was found is owned, or another purge is at it: no use to go on.
        return Purged(removed, 0, more=removed > 0 and len(found) >= limit)

    # --- helpers --------------------------------------------------------------------------------------------

    async def _newest(self, prefix: bytes, before: str | None, count: int) -> list[str]:
        """Ids under this name, newest first, from all partitions in one order."""
        top = b"(" + prefix + (b"\xff" if before is None else before.encode())

        async def newest(partition: Partition) -> list[bytes]:
            names: list[bytes] = await self.client.execute(
                "ZREVRANGEBYLEX", partition.index, top, b"(" + prefix, "LIMIT", 0, count,
                key=partition.index, repeatable=True,
            )  # fmt: skip
            return names

        merged = merge(*await self._everywhere(newest), reverse=True)
        return [name[len(prefix) :].decode() for name, _ in zip(merged, range(count), strict=False)]

    async def _metas(self, ids: list[str]) -> list[SagaMeta | None]:
        return await all_at_once(self._listed_meta, ids)

    async def _listed_meta(self, saga_id: str) -> SagaMeta | None:
        found = await self._saga_head(saga_id)
        return listed_meta(saga_id, found) if found else None

    async def _adoptable(self, ids: list[str], limit: int, free: Callable[[SagaMeta], bool]) -> list[AdoptableSaga]:
        metas = [meta for meta in await self._metas(ids) if meta is not None and free(meta)]
        metas = [meta for meta in metas if meta.status is not OperationStatus.UNKNOWN]  # its head cannot be read
        metas.sort(key=lambda meta: (-meta.priority, meta.saga_id))
        return [AdoptableSaga(m.saga_id, m.epoch, m.priority, m.owner) for m in metas[:limit]]

    async def _everywhere(self, ask: Callable[[Partition], Awaitable[T]]) -> list[T]:
        return await all_at_once(ask, list(self.layout.partitions))


def _index_prefix(where: SagaFilter) -> bytes:
    """The name in the index that leaves the fewest sagas to look at."""
    if where.status is not None and where.status is not OperationStatus.COMPLETED:
        return b"s" + SEPARATOR + where.status.value.encode() + SEPARATOR
    if where.workflow_type is not None and where.tenant_id is None:
        return b"y" + SEPARATOR + where.workflow_type.encode() + SEPARATOR
    if where.tenant_id is not None:
        return b"t" + SEPARATOR + where.tenant_id.encode() + SEPARATOR
    return b"a" + SEPARATOR
