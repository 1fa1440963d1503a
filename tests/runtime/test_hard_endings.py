"""Attempts that end in ways their authors did not think of: the saga goes on by the rules all the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, NonRetryableError, OperationStatus
from runtime.nodes import Node

COMPENSATED, COMPLETED, FAILED = OperationStatus.COMPENSATED, OperationStatus.COMPLETED, OperationStatus.FAILED
ONCE = {"max_retries": 0}
SOON = {"max_retries": 9, "initial_delay": 0.1, "max_delay": 0.1, "jitter": False}


def _with(op: Callable[[Any], Any]) -> Callable[[BackgroundOperationsManager], None]:
    def register(manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("op", op)

    return register


async def _ended(node: Node, steps: list[dict[str, Any]]) -> Any:
    handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
    await handle.result()
    return await handle.get()


async def test_a_handler_whose_nursery_breaks_while_it_is_cut_off_is_tried_again_by_its_policy(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    attempts: list[float] = []

    async def op(_parameters: Any) -> str:
        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while cleaning up")

        attempts.append(trio.current_time())
        if len(attempts) < 10:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
                await trio.sleep_forever()
        return "fine"

    async with Node(shared, _with(op)) as node:
        saga = await _ended(node, [{"name": "s", "operation": "op", "timeout_seconds": 1, "retry": SOON}])
        history = await node.manager.get_saga_history(saga.saga_id)
    assert (saga.status, len(attempts)) == (COMPLETED, 10)
    failures = [str(line.details) for line in history if line.event == "step_failed"]
    assert all("while cleaning up" in failure for failure in failures)
    assert len(failures) == 9


async def test_a_late_heartbeat_gives_no_later_attempt_a_deadline(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async def first(_parameters: Any, context: Any) -> None:
        async def beats() -> None:
            for _ in range(3):
                await trio.sleep(0.4)
                context.heartbeat()

        nursery.start_soon(beats)
        await trio.sleep(1.0)

    async def second(_parameters: Any) -> None:
        await trio.sleep(5)

    def register(manager: Any) -> None:
        manager.register_operation_handler("first", first)
        manager.register_operation_handler("second", second)

    async with Node(shared, register) as node:
        pivot = {"name": "b", "operation": "second", "kind": "pivot", "retry": ONCE}
        saga = await _ended(node, [{"name": "a", "operation": "first", "timeout_seconds": 1.5}, pivot])
    assert saga.status is COMPLETED


async def test_an_error_whose_text_cannot_be_had_is_an_error_like_any_other(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    class BadError(Exception):
        def __str__(self) -> str:
            return f"it has no {self.text}"  # type: ignore[attr-defined]  # that is the point

    undone: list[str] = []

    async def op(_parameters: Any) -> None:
        raise BadError

    async def undo(_parameters: Any) -> None:
        undone.append("s")

    def register(manager: Any) -> None:
        manager.register_operation_handler("op", op)
        manager.register_compensation_handler("undo", undo)

    async with Node(shared, register) as node:
        saga = await _ended(
            node,
            [{"name": "s", "operation": "op", "compensation_operation": "undo", "retry": SOON | {"max_retries": 2}}],
        )
    assert (saga.status, saga.steps[0].attempts, undone) == (COMPENSATED, 3, [])
    assert "BadError" in saga.error


@pytest.mark.parametrize("policy", [{}, {"non_retryable": ["KeyError"]}])
async def test_what_no_retry_helps_is_seen_in_a_group_too(
    autojump_clock: MockClock, shared: MemoryStorage, policy: dict[str, Any]
) -> None:
    calls: list[Any] = []

    async def op(parameters: Any) -> None:
        async def child() -> None:
            raise KeyError("card") if policy else NonRetryableError("card declined")

        calls.append(parameters)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    async with Node(shared, _with(op)) as node:
        saga = await _ended(node, [{"name": "s", "operation": "op", "retry": SOON | policy}])
    assert (saga.status, len(calls)) == (COMPENSATED, 1)


@pytest.mark.parametrize("how", ["exit", "cancelled"])
async def test_what_a_plain_function_lets_out_of_its_thread_ends_its_attempt_only(
    shared: MemoryStorage, how: str
) -> None:
    def op(_parameters: Any) -> None:
        async def cancelled() -> None:
            raise asyncio.CancelledError

        sys.exit(3) if how == "exit" else asyncio.run(cancelled())

    async with Node(shared, _with(op)) as node:
        saga = await _ended(node, [{"name": "s", "operation": "op", "kind": "pivot", "retry": ONCE}])
        assert node.manager.is_running
    assert saga.status is FAILED  # parked: nobody knows how far it came
    assert "out of its thread" in saga.error


async def test_a_pivot_that_still_waits_for_its_lock_can_be_cancelled(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    called: list[Any] = []

    async def op(parameters: Any) -> None:
        called.append(parameters)

    async with Node(shared, _with(op)) as node, node.manager.lock("taken"):
        handle = await node.manager.start_saga(
            tenant_id="t", workflow_type="w", steps=[{"name": "s", "operation": "op", "kind": "pivot", "lock": "taken"}]
        )
        await trio.sleep(1)
        await handle.cancel()
        with trio.fail_after(60):
            outcome = await handle.result()
    assert (outcome.status, called) == (COMPENSATED, [])


async def test_a_plain_function_that_asks_for_its_steps_lock_is_told_so(shared: MemoryStorage) -> None:
    node = Node(shared, lambda _manager: None)

    def op(_parameters: Any) -> None:
        with node.manager.sync.lock("mine"):
            raise AssertionError("it holds it already")

    node.manager.register_operation_handler("op", op)
    async with node:
        saga = await _ended(node, [{"name": "s", "operation": "op", "lock": "mine", "retry": ONCE}])
    assert (saga.status, "LockReentered" in saga.error) == (COMPENSATED, True)
