"""Plain handlers under a clock that jumps: threads take real time, and do not time out for that."""

from __future__ import annotations

import threading
import time
from typing import Any

import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, OperationStatus
from runtime.nodes import Node

STEP: dict[str, Any] = {"name": "s", "operation": "op", "max_retries": 0}


async def outcome_of(node: Node, **step: Any) -> Any:
    handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[STEP | step])
    return await handle.result()


def only(function: Any) -> Any:
    def register(manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("op", function)

    return register


async def test_a_thread_has_its_time_out_in_real_time(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    def work(_parameters: Any) -> str:
        time.sleep(0.05)
        return "done"

    async with Node(shared, only(work)) as node:
        assert (await outcome_of(node, timeout_seconds=5)).results == {"s": "done"}
        with trio.fail_after(5):
            assert await node.manager.run_idempotent(tenant_id="t", operation_type="op") == "done"
        before = trio.current_time()
        await trio.sleep(1000)  # in virtual time, as before
        assert trio.current_time() - before == 1000


async def test_a_thread_that_hangs_is_cut_off_at_its_time_out(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    leave = threading.Event()

    def work(_parameters: Any) -> None:
        leave.wait(30)

    async with Node(shared, only(work)) as node:
        outcome = await outcome_of(node, timeout_seconds=0.1)
        leave.set()
    assert outcome.status is OperationStatus.COMPENSATED
    assert "StepTimedOut" in str(outcome.error)


async def test_time_passes_while_a_thread_waits_for_the_manager(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    node = Node(shared, lambda _manager: None)

    async def slow(_parameters: Any) -> str:
        await trio.sleep(500)
        return "slow"

    def work(_parameters: Any) -> Any:
        steps = [{"name": "a", "operation": "slow"}]
        handle = node.manager.sync.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        results = handle.result().results
        time.sleep(0.02)
        return results

    node.manager.register_operation_handler("slow", slow)
    node.manager.register_operation_handler("op", work)
    async with node:
        assert (await outcome_of(node, timeout_seconds=600)).results == {"s": {"a": "slow"}}
        assert trio.current_time() >= 500
