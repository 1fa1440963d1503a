"""A manager in this process, with one operation whose every attempt waits for the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager, SagaHandle
from dotmac.tasks.runtime.context import HandlerContext
from dotmac.tasks.storage.redis import RedisStorage
from support.servers import Server


@dataclass
class House:
    """What runs, and what was seen of it.

    Attributes:
        gate: Attempts of ``act`` end when it is open.
        begun, ended, cut: Attempts as ``step attempt``.
        fences: Of every attempt that began.
        failures: Verbs of the storage that failed, with the error.
    """

    manager: BackgroundOperationsManager
    gate: trio.Event = field(default_factory=trio.Event)
    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    failures: list[tuple[str, Exception]] = field(default_factory=list)

    async def act(self, _parameters: dict[str, Any], context: HandlerContext) -> None:
        name = f"{context.step} {context.attempt}"
        self.begun.append(name)
        self.fences.append(context.fence)
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cut.append(name)
            raise
        self.ended.append(name)

    async def start(self, *names: str) -> SagaHandle:
        """Start a saga whose steps do nothing but wait at the gate."""
        steps = [{"name": name, "operation": "act"} for name in names]
        return await self.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)

    def observe(self, verb: str, _seconds: float, failure: BaseException | None) -> None:
        if isinstance(failure, Exception):  # what was cancelled did not fail
            self.failures.append((verb, failure))

    @property
    def worker(self) -> object:
        """The present worker of the manager, or None."""
        assert self.manager._hosting is not None
        return self.manager._hosting._runtime._worker

    def failed(self, verb: str) -> bool:
        return any(name == verb for name, _ in self.failures)


@asynccontextmanager
async def house(server: Server, *, socket_timeout: float = 0.5, **settings: Any) -> AsyncIterator[House]:
    storage = RedisStorage(server.url, "house", socket_timeout=socket_timeout)
    manager = BackgroundOperationsManager(storage, **{"poll_interval": 0.1, **settings})
    made = House(manager)
    storage.observer = made.observe
    manager.register_operation_handler("act", made.act)
    async with manager:
        yield made


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Poll until the condition holds."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - states of a server have no event
            await trio.sleep(0.01)
