"""Storage in this process's memory: complete, for development and tests. Nothing survives the process.

Several managers may share one `MemoryStorage`, so takeover between runtimes can be tried in one process. Time is
trio's clock, so a virtual clock drives leases, back-off and retention too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ...models import Finding, Verdict
from ..folding import findings_of_handlers, findings_of_workers
from ..records import Purged
from ..seed import SeedMethods
from .locks import MemoryLocks
from .records import MemoryRecords
from .sagas import MemorySagas
from .workers import MemoryWorkers

__all__ = ["MemoryStorage"]


class MemoryStorage(MemorySagas, MemoryRecords, MemoryWorkers, MemoryLocks, SeedMethods):
    """A complete storage in memory. Stopping a manager keeps the data; they go with the object."""

    def __init__(self) -> None:
        MemorySagas.__init__(self)
        MemoryLocks.__init__(self)
        SeedMethods.__init__(self)

    async def purge(self, limit: int) -> Purged:
        """See `StorageProtocol`."""
        self.forget_ended_locks()
        return await super().purge(limit)

    async def examine(self) -> list[Finding]:
        """See `StorageProtocol`."""
        return [
            Finding(
                "persistence",
                Verdict.ADVICE,
                "memory storage: everything in it ends with this process, and no other process sees it",
                remedy="RedisStorage(redis_url='redis://HOST:6379/0'), or --redis redis://HOST:6379/0",
            ),
            *findings_of_workers(self._workers.values(), self.now()),
            *findings_of_handlers(await self.missing_handlers()),
        ]

    async def causes_of_loss(self) -> list[str]:
        """See `StorageProtocol`."""
        return []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Nothing to connect to."""
        yield
