"""Where the demo runs: which storage, which runtime stays, and how another one is killed.

`scenarios` knows only the two protocols of this module, so storage and weapon can be exchanged without touching what
is shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import trio

from ..manager import BackgroundOperationsManager
from ..storage.memory import MemoryStorage
from .ledger import Ledger
from .sagas import TENANT, DemoSaga, register_handlers

DOOMED_LEASE = 2.0
"""Seconds after which a killed runtime's sagas are taken over. Short, so that nobody has to wait for it long."""


class DoomedRuntime(Protocol):
    """A runtime that runs one saga and is killed meanwhile."""

    async def start_saga(self, saga: DemoSaga) -> str:
        """Start the saga there; gives its id."""
        ...

    async def kill(self) -> str:
        """End the runtime without a farewell, and say in a few words how that was done."""
        ...


class Stage(Protocol):
    """The runtime that stays, and what it takes to lose another one."""

    @property
    def title(self) -> str:
        """One line about storage and killing."""
        ...

    @property
    def manager(self) -> BackgroundOperationsManager:
        """Runs the first sagas, looks at all of them, and takes over."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The service that all runtimes call."""
        ...

    @property
    def pace(self) -> float:
        """Seconds that each attempt takes."""
        ...

    def doomed(self) -> AbstractAsyncContextManager[DoomedRuntime]:
        """A second runtime on the same storage, to be killed; nothing of it is left behind."""
        ...


class MemoryStage:
    """Two runtimes of one process on one `MemoryStorage`."""

    title = "memory storage, two runtimes in one process"

    def __init__(self, storage: MemoryStorage, ledger: Ledger, pace: float) -> None:
        self._storage = storage
        self.ledger = ledger
        self.pace = pace
        self.manager = BackgroundOperationsManager(storage=storage, poll_interval=0.2)
        register_handlers(self.manager, ledger, pace)

    @asynccontextmanager
    async def doomed(self) -> AsyncIterator[DoomedRuntime]:
        """See `Stage`."""
        manager = BackgroundOperationsManager(storage=self._storage, worker_lease=DOOMED_LEASE, poll_interval=0.2)
        register_handlers(manager, self.ledger, self.pace)
        await manager.start()
        try:
            yield _DoomedManager(manager)
        finally:
            await _tear_down(manager)


@asynccontextmanager
async def memory_stage(folder: Path, pace: float) -> AsyncIterator[Stage]:
    """The demo's stage on memory storage; the service's book is kept in `folder`."""
    stage = MemoryStage(MemoryStorage(), Ledger(folder / "ledger.jsonl"), pace)
    async with stage.manager:
        yield stage


class _DoomedManager:
    def __init__(self, manager: BackgroundOperationsManager) -> None:
        self._manager = manager

    async def start_saga(self, saga: DemoSaga) -> str:
        handle = await self._manager.start_saga(tenant_id=TENANT, workflow_type=saga.workflow_type, steps=saga.steps)
        return handle.saga_id

    async def kill(self) -> str:
        await _tear_down(self._manager)
        return "its tasks were torn down in mid-step, without a drain"


async def _tear_down(manager: BackgroundOperationsManager) -> None:
    """A stop that is cancelled before it can drain: nothing is written, no lease is given back.

    Cancelled is caught by the scope that caused it, and by no other.
    """
    with trio.CancelScope() as at_once:
        at_once.cancel()
        await manager.stop()
