"""Handlers that ignore their cancellation: left behind where a task can be, and named in the log where it cannot."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from bridge.hosts import ASYNCIO_HOSTS, PATIENCE, Host, a_manager, run_asyncio
from dotmac.tasks import BackgroundOperationsManager, DotmacTasksError, HandlerContext, MemoryStorage, OperationStatus
from runtime.nodes import Node

COMPENSATED = OperationStatus.COMPENSATED
GRACE: dict[str, Any] = {"cancel_grace": 0.05, "drain_timeout": 0.05}
in_asyncio = pytest.mark.parametrize("host", ASYNCIO_HOSTS.values(), ids=ASYNCIO_HOSTS)


class Deaf:
    """Handlers of asyncio that swallow each cancellation until they are released."""

    def __init__(self) -> None:
        self.released = False
        self.undone: list[bool] = []
        self.entered = threading.Event()
        self.tasks: list[asyncio.Task[Any]] = []

    async def work(self, _parameters: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        self.entered.set()
        ends = time.monotonic() + 3
        while not self.released and time.monotonic() < ends:
            with suppress(BaseException):
                await asyncio.sleep(0.01)
        raise ValueError("a late end")

    async def undo(self, _parameters: Any, context: HandlerContext) -> None:
        self.undone.append(context.step_happened)

    def register(self, manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("work", self.work)
        manager.register_operation_handler("returns", lambda parameters: self.work(parameters))  # noqa: PLW0108
        manager.register_compensation_handler("undo", self.undo)

    async def release(self) -> None:
        self.released = True
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        gc.collect()  # an error that nothing looked at would be reported here


def saga(**step: Any) -> dict[str, Any]:
    fields = {"name": "A", "operation": "work", "compensation_operation": "undo", "max_retries": 0}
    return {"tenant_id": "t", "workflow_type": "w", "steps": [fields | step]}


@in_asyncio
@pytest.mark.parametrize("operation", ["work", "returns"])
def test_a_task_that_ignores_its_time_out_is_left_behind(
    host: Host[Any], caplog: pytest.LogCaptureFixture, operation: str
) -> None:
    deaf, manager = Deaf(), a_manager(**GRACE)
    deaf.register(manager)

    async def program(manager: BackgroundOperationsManager) -> None:
        handle = await manager.start_saga(**saga(operation=operation, timeout_seconds=0.02, lock="mine"))
        outcome = await handle.result()
        assert (outcome.status, deaf.undone) == (COMPENSATED, [False])
        assert "StepTimedOut" in str(outcome.error)
        lines = [record for record in caplog.records if "left behind" in record.message]
        assert [record.levelname for record in lines] == ["WARNING"]
        assert f"the task of {operation!r} ({handle.saga_id}) ignores its cancellation" in lines[0].message
        assert await manager.list_locks() == []
        await deaf.release()

    host(manager, program)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("how", ["saga", "operation"])
def test_a_stop_leaves_a_task_behind_that_ignores_it(caplog: pytest.LogCaptureFixture, how: str) -> None:
    deaf, manager = Deaf(), a_manager(**GRACE)
    deaf.register(manager)

    async def main() -> None:
        await manager.start()
        asked: asyncio.Task[Any] | None = None
        if how == "saga":
            await manager.start_saga(**saga())
        else:
            asked = asyncio.create_task(manager.run_idempotent(tenant_id="t", operation_type="work"))
        await asyncio.to_thread(deaf.entered.wait, PATIENCE)
        await manager.stop()
        assert not deaf.tasks[0].done()
        assert "the task of 'work'" in caplog.text
        if asked is not None:
            with pytest.raises(DotmacTasksError):
                await asked
        await deaf.release()

    run_asyncio(main)


@pytest.fixture
def reports(caplog: pytest.LogCaptureFixture) -> Callable[[], Iterator[str]]:
    def find() -> Iterator[str]:
        return (record.message for record in caplog.records if record.name == "dotmac.tasks.runtime.unresponsive")

    return find


def shielding(seconds: float) -> Callable[[Any], Any]:
    async def work(_parameters: Any) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        await trio.lowlevel.checkpoint()

    return work


def only(work: Callable[[Any], Any]) -> Callable[[BackgroundOperationsManager], None]:
    def register(manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("work", work)

    return register


async def test_a_trio_task_that_ignores_its_time_out_is_named_at_intervals(
    autojump_clock: MockClock, reports: Callable[[], Iterator[str]]
) -> None:
    async with Node(MemoryStorage(), only(shielding(100)), cancel_grace=4.0) as node:
        steps = [{"name": "s", "operation": "work", "timeout_seconds": 10, "max_retries": 0}]
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        outcome = await handle.result()
    lines = list(reports())
    assert "StepTimedOut" in str(outcome.error)
    assert all(f"the handler of 'work' ({handle.saga_id})" in line for line in lines)
    assert len(lines) == 6  # after about 4, 8, 16, 32 and 64 seconds, and at the end
    assert "ignores its cancellation for 4.0 s; trio cannot leave a task behind" in lines[0]
    assert "has ended" in lines[-1]


@pytest.mark.parametrize("how", ["saga", "operation"])
async def test_a_trio_task_that_ignores_a_stop_is_named(
    autojump_clock: MockClock, reports: Callable[[], Iterator[str]], nursery: trio.Nursery, how: str
) -> None:
    entered = trio.Event()

    async def work(parameters: Any) -> None:
        entered.set()
        await shielding(100)(parameters)

    node = Node(MemoryStorage(), only(work), cancel_grace=4.0, drain_timeout=5.0)
    async with node:
        steps = [{"name": "s", "operation": "work"}]
        if how == "saga":
            await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        else:
            nursery.start_soon(_ask, node)
        await entered.wait()
    assert "ignores its cancellation for 4.0 s" in next(reports())


async def _ask(node: Node) -> None:
    with suppress(Exception):
        await node.manager.run_idempotent(tenant_id="t", operation_type="work")


async def test_a_handler_that_ends_within_its_grace_is_not_named(
    autojump_clock: MockClock, reports: Callable[[], Iterator[str]]
) -> None:
    async with Node(MemoryStorage(), only(shielding(12)), cancel_grace=4.0) as node:
        steps = [{"name": "s", "operation": "work", "timeout_seconds": 10, "max_retries": 0}]
        await (await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
    assert list(reports()) == []
