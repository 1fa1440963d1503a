"""Stops and deaths with a real server: what a handler that ends its process costs, and a stop during a wait."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing

from dotmac.tasks import BackgroundOperationsManager, OperationStatus
from dotmac.tasks.storage.redis import RedisStorage
from support.processes import spawn
from support.servers import Server, standalone

pytestmark = pytest.mark.redis
TESTS = Path(__file__).parents[1]
LOSSES = 3


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with standalone(aof=True) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid4().hex[:8]}"


def _storage(server: Server, prefix: str) -> RedisStorage:
    return RedisStorage(server.url, prefix=prefix, partitions=1)


class Fleet:
    """Worker processes; each that ends is replaced, as a service manager does.

    Attributes:
        deaths: Processes that ended.
    """

    def __init__(self, stack: ExitStack, server: Server, prefix: str, size: int) -> None:
        self._stack = stack
        self._command = [sys.executable, "-m", "runtime.poison_process", server.url, prefix, str(LOSSES)]
        self._processes = [self._start() for _ in range(size)]
        self.deaths = 0

    def _start(self) -> subprocess.Popen[bytes]:
        process = spawn(self._command, env={**os.environ, "PYTHONPATH": str(TESTS)}, stderr=subprocess.DEVNULL)
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process

    def replace_the_dead(self) -> None:
        for index, process in enumerate(self._processes):
            if process.poll() is not None:
                self.deaths += 1
                self._processes[index] = self._start()


async def test_a_handler_that_ends_its_process_is_parked_and_the_other_sagas_complete(
    server: Server, prefix: str
) -> None:
    manager = BackgroundOperationsManager(_storage(server, prefix), works=False)
    with ExitStack() as stack:
        async with manager:
            work = {"name": "a", "operation": "work", "parameters": {"seconds": 0.5}}
            begin: dict[str, Any] = {"tenant_id": "t", "workflow_type": "w"}
            poison = await manager.start_saga(**begin, steps=[{"name": "bomb", "operation": "poison"}])
            innocent = [await manager.start_saga(**begin, steps=[work, {**work, "name": "b"}]) for _ in range(10)]
            fleet = Fleet(stack, server, prefix, 3)
            with trio.fail_after(60):
                while not (await manager.get_saga(poison.saga_id)).status.is_final:
                    fleet.replace_the_dead()
                    await trio.sleep(0.05)
                for saga in innocent:
                    assert (await saga.result()).completed
            parked = await manager.get_saga(poison.saga_id)
    assert parked.status is OperationStatus.FAILED
    (item,) = parked.open_items
    assert item.startswith(f"step 'bomb' was given up: {LOSSES} workers in a row were lost while it ran")
    assert parked.steps[0].attempts == LOSSES
    assert fleet.deaths <= LOSSES


@pytest.mark.parametrize("by_handle", [True, False])
async def test_a_stop_lets_a_saga_end_that_a_running_step_waits_for(
    server: Server, prefix: str, by_handle: bool
) -> None:
    manager = BackgroundOperationsManager(_storage(server, prefix), drain_timeout=30)
    entered, may_end = trio.Event(), trio.Event()

    @manager.register_operation_handler("parent")
    async def parent(_parameters: Any) -> None:
        child = [{"name": name, "operation": name} for name in ("first", "second")]
        if by_handle:
            handle = await manager.start_saga(tenant_id="t", workflow_type="child", steps=child)
            assert (await handle.result()).completed
        else:
            saga = await manager.create_saga_workflow("t", "child", child)
            assert await manager.execute_saga_workflow(saga.saga_id)

    @manager.register_operation_handler("first")
    async def first(_parameters: Any) -> None:
        entered.set()
        await may_end.wait()

    @manager.register_operation_handler("second")
    async def second(_parameters: Any) -> None:
        await trio.lowlevel.checkpoint()

    await manager.start()
    step = {"name": "a", "operation": "parent", "max_retries": 0}
    saga = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step])
    with trio.fail_after(20):
        await entered.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.stop)
            await trio.testing.wait_all_tasks_blocked(0.05)
            may_end.set()
    async with BackgroundOperationsManager(_storage(server, prefix), works=False) as looker:
        left = await looker.get_saga(saga.saga_id)
    assert (left.steps[0].status, left.steps[0].attempts) == (OperationStatus.COMPLETED, 1)
