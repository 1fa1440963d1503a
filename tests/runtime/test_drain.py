"""Stopping: running steps finish, waiting sagas are handed over, what takes too long is cut off and written down."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    AlreadyStarted,
    BackgroundOperationsManager,
    MemoryStorage,
    NotStarted,
    OperationStatus,
    RetryPolicy,
)
from runtime.nodes import Ledger, Node, only_saga, step, until

SLOW = RetryPolicy(initial_delay=50, max_delay=50, jitter=False)


@pytest.fixture(autouse=True)
async def _no_task_is_left_behind() -> Any:
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    assert trio.lowlevel.current_statistics().tasks_living == before


async def begin(node: Node, *steps: dict[str, Any]) -> Any:
    return await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=list(steps))


async def test_a_running_step_finishes_and_the_next_one_is_left_to_others(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, nursery: trio.Nursery
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as node:
        handle = await begin(node, step("a"), step("b"))
        await until(lambda: ledger.entered)
        nursery.start_soon(node.manager.stop)
        await trio.sleep(10)
        ledger.hold["a"].set()
        await until(lambda: node.manager._hosting is None and only_saga(shared).owner is None)
        saga = only_saga(shared)
        assert saga.due_at <= shared.now()
        assert (ledger.effects, saga.status) == (["a"], OperationStatus.IN_PROGRESS)
        async with Node(shared, ledger.register) as other:
            assert (await other.manager.saga_handle(handle.saga_id).result()).completed
    assert ledger.attempts == [("a", 1), ("b", 1)]


async def test_a_waiting_saga_is_handed_over_with_its_due_time(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["a"] = ValueError("not yet")
    async with Node(shared, ledger.register) as node:
        await begin(node, step("a", retry=SLOW))
        await until(lambda: ledger.entered)
        await trio.sleep(1)
        before = trio.current_time()
    assert trio.current_time() - before < 1
    head = only_saga(shared)
    assert head.owner is None
    assert 48 < head.due_at - shared.now() < 50


async def test_what_outlasts_the_drain_is_cut_off_and_journaled_as_unknown(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register, drain_timeout=20) as node:
        handle = await begin(node, step("a"))
        await until(lambda: ledger.entered)
        before = trio.current_time()
        await node.manager.stop()
        assert trio.current_time() - before == pytest.approx(20, abs=1)
    assert only_saga(shared).owner is None
    async with Node(shared, ledger.register) as other:
        ledger.hold.clear()
        assert (await other.manager.saga_handle(handle.saga_id).result()).completed
        history = await other.manager.get_saga_history(handle.saga_id)
    (failed,) = [line for line in history if line.event == "step_failed"]
    assert failed.details["failure"] == {
        "error": "Drained",
        "message": "its worker was stopped",
        "unknown": True,
        "interrupted": True,
    }


@pytest.mark.parametrize("undo", [False, True])
async def test_orderly_stops_use_up_no_retries_and_delay_nothing(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, undo: bool
) -> None:
    at = "undo a" if undo else "a"
    ledger.hold[at] = trio.Event()
    if undo:
        ledger.failing["b"] = ValueError("no")
    once = RetryPolicy(max_retries=0, initial_delay=50, max_delay=50, jitter=False)
    steps = [step("a", retry=once, compensation_retry=once), step("b", retry=once)]
    saga_id = ""
    for stops in range(4):
        async with Node(shared, ledger.register, drain_timeout=1) as node:
            saga_id = saga_id or (await begin(node, *steps)).saga_id
            await until(lambda: ledger.entered.count(at) == stops + 1, seconds=5)  # noqa: B023 - awaited at once
    ledger.hold.clear()
    async with Node(shared, ledger.register) as node:
        outcome = await node.manager.saga_handle(saga_id).result()
        made = (await node.manager.get_saga(saga_id)).steps[0]
    assert outcome.status is (OperationStatus.COMPENSATED if undo else OperationStatus.COMPLETED)
    assert (made.attempts, made.compensation_attempts) == ((1, 5) if undo else (5, 0))
    assert made.retry_count == 0
    assert len(ledger.tokens[at]) == 1


@pytest.mark.parametrize("by_handle", [True, False])
async def test_a_stop_lets_a_saga_end_that_a_running_step_waits_for(
    autojump_clock: MockClock, shared: MemoryStorage, by_handle: bool
) -> None:
    node = Node(shared, lambda _: None, drain_timeout=30)
    manager = node.manager

    @manager.register_operation_handler("parent")
    async def parent(_parameters: Any, context: Any) -> None:
        child = [{"name": name, "operation": "child"} for name in ("one", "two", "three")]
        if by_handle:
            key = {"idempotency_key": context.token}
            handle = await manager.start_saga(tenant_id="t", workflow_type="child", steps=child, **key)
            assert (await handle.result()).completed
        else:
            saga = await manager.create_saga_workflow("t", "child", child)
            assert await manager.execute_saga_workflow(saga.saga_id)

    @manager.register_operation_handler("child")
    async def child(_parameters: Any) -> None:
        await trio.sleep(1)

    async with node:
        handle = await begin(node, {"name": "a", "operation": "parent", "max_retries": 0})
        await trio.sleep(1.5)
        before = trio.current_time()
        await manager.stop()
        assert trio.current_time() - before < 3
    async with Node(shared, lambda _: None) as other:
        other.manager.register_operation_handler("parent", parent)
        saga = await other.manager.get_saga(handle.saga_id)
        assert (await other.manager.saga_handle(handle.saga_id).result()).completed
    assert (saga.steps[0].attempts, saga.steps[0].status) == (1, OperationStatus.COMPLETED)


async def test_a_saga_that_a_step_waits_for_is_handed_over_when_the_stop_s_time_is_over(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    def register(manager: BackgroundOperationsManager) -> None:
        @manager.register_operation_handler("parent")
        async def parent(_parameters: Any, context: Any) -> None:
            child = [{"name": str(number), "operation": "child"} for number in range(100)]
            key = {"idempotency_key": context.token}
            handle = await manager.start_saga(tenant_id="t", workflow_type="child", steps=child, **key)
            assert (await handle.result()).completed

        @manager.register_operation_handler("child")
        async def child(_parameters: Any) -> None:
            await trio.sleep(1)

    async with Node(shared, register, drain_timeout=5) as node:
        handle = await begin(node, {"name": "a", "operation": "parent", "max_retries": 0})
        await trio.sleep(1.5)
        before = trio.current_time()
        await node.manager.stop()
        assert trio.current_time() - before < 6
    async with Node(shared, register) as other:
        assert (await other.manager.saga_handle(handle.saga_id).result()).completed
        assert len((await other.manager.list_sagas()).sagas) == 2


async def test_a_step_that_a_stop_keeps_from_starting_a_saga_uses_up_no_retry(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    def register(manager: BackgroundOperationsManager) -> None:
        @manager.register_operation_handler("parent")
        async def parent(_parameters: Any) -> None:
            await trio.sleep(2)
            child = {"name": "a", "operation": "child"}
            await manager.start_saga(tenant_id="t", workflow_type="child", steps=[child])

        @manager.register_operation_handler("child")
        async def child(_parameters: Any) -> None:
            pass

    async with Node(shared, register) as node:
        handle = await begin(node, {"name": "a", "operation": "parent", "max_retries": 0})
        await trio.sleep(1)
    async with Node(shared, register) as other:
        assert (await other.manager.saga_handle(handle.saga_id).result()).completed


async def test_what_a_handler_raises_while_a_stop_cuts_it_off_uses_up_no_retry(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async def touchy(_parameters: Any) -> None:
        try:
            await trio.sleep(100)
        except trio.Cancelled as error:
            raise RuntimeError("the connection was closed") from error

    node = Node(shared, lambda _: None, drain_timeout=1)
    node.manager.register_operation_handler("do")(touchy)
    async with node:
        saga_id = (await begin(node, step("a", kind="pivot", max_retries=0))).saga_id
        await trio.sleep(1)
    async with Node(shared, ledger.register) as other:
        assert (await other.manager.saga_handle(saga_id).result()).completed


async def test_an_attempt_whose_start_is_being_written_at_the_deadline_is_not_begun(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async def slow(_wire: Any, verb: str, call: Any) -> Any:
        answer = await call()
        if verb == "append":
            await trio.sleep(2)
        return answer

    async with Node(shared, ledger.register, drain_timeout=0.1) as node:
        node.wire.fault = slow
        handle = await begin(node, step("a"), step("b"))
        await until(lambda: ledger.effects == ["a"])
        await trio.sleep(1)
        await node.manager.stop()
    assert ledger.entered == ["a"]
    async with Node(shared, ledger.register) as other:
        assert (await other.manager.saga_handle(handle.saga_id).result()).completed
    assert ledger.effects == ["a", "b"]


async def test_the_body_s_exception_passes_unwrapped(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    with pytest.raises(KeyError):
        async with Node(shared, lambda _: None).manager:
            raise KeyError("mine")


async def test_a_cancelled_body_does_not_wait_for_the_drain(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    with trio.move_on_after(5) as scope:
        node = Node(shared, ledger.register)
        async with node.manager:
            await begin(node, step("a"))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() < 6
    assert only_saga(shared).owner is None  # cut off, written down, and handed over


async def test_ctrl_c_in_the_body_passes_and_hurries(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    node = Node(shared, ledger.register)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - what raises is the block
        async with node.manager:
            await begin(node, step("a"))
            await until(lambda: ledger.entered)
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()
    assert trio.current_time() < 5


async def test_ctrl_c_that_hits_a_handler_reaches_the_caller(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    node = Node(shared, lambda _: None)

    @node.manager.register_operation_handler("do")
    async def interrupted(_parameters: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - what raises is the block
        async with node.manager:
            handle = await begin(node, {"name": "a", "operation": "do"})
            await handle.result()
    assert only_saga(shared).status is OperationStatus.IN_PROGRESS


class Broken(MemoryStorage):
    """Works until it is told to break in a way that nobody expects."""

    broken = False

    def watch(self, topic: str) -> Any:
        if self.broken:
            raise RuntimeError("a bug in a storage")
        return super().watch(topic)

    async def due_sagas(self, limit: int, *, max_age: float = 0.0) -> Any:
        if self.broken:
            raise RuntimeError("a bug in a storage")
        return await super().due_sagas(limit, max_age=max_age)


async def test_a_runtime_that_fails_cancels_the_body_and_raises(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Broken()
    manager = Node(storage, lambda _: None).manager
    with pytest.raises(Exception, match="runtime"), trio.fail_after(600):  # noqa: PT012 - what raises is the block
        async with manager:
            storage.broken = True
            await trio.sleep_forever()
    assert "is not running any more" in caplog.text
    with pytest.raises(NotStarted):
        await manager.get_saga("x")
    storage.broken = False
    async with manager:
        assert (await manager.list_sagas()).sagas == []


async def test_start_and_stop(autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger) -> None:
    manager = Node(shared, ledger.register).manager
    with pytest.raises(NotStarted):
        await manager.list_sagas()
    await manager.stop()
    for _ in range(2):
        await manager.start()
        with pytest.raises(AlreadyStarted):
            await manager.start()
        assert (await manager.list_sagas()).sagas == []
        await manager.stop()
        await manager.stop()
    with pytest.raises(NotStarted):
        await manager.get_saga("x")


async def test_a_cancelled_start_leaves_nothing_running(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    node = Node(shared, ledger.register)

    async def hang(_wire: Any, _verb: str, _call: Any) -> Any:
        await trio.sleep_forever()

    node.wire.fault = hang
    with trio.move_on_after(1):
        await node.manager.start()
    with pytest.raises(NotStarted):
        await node.manager.list_sagas()
    node.wire.fault = None
    async with node:
        pass


async def test_a_stop_that_is_cancelled_ends_everything_at_once(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    node = Node(shared, ledger.register)
    await node.manager.start()
    await begin(node, step("a"))
    await until(lambda: ledger.entered)
    with trio.move_on_after(1):
        await node.manager.stop()
    assert node.manager._hosting is None


async def test_a_saga_that_is_adopted_while_its_worker_drains_is_handed_on(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, nursery: trio.Nursery
) -> None:
    async def slow(_wire: Any, verb: str, call: Any) -> Any:
        answer = await call()
        if verb == "adopt_saga":
            await trio.sleep(3)
        return answer

    ledger.hold["keep"] = trio.Event()
    async with Node(shared, ledger.register) as node:
        await begin(node, step("keep"))
        saga = await node.manager.create_saga_workflow("t", "w", [step("a")])
        node.wire.fault = slow
        nursery.start_soon(node.manager.execute_saga_workflow, saga.saga_id)
        await trio.sleep(1)
        nursery.start_soon(node.manager.stop)
        await trio.sleep(10)
        assert "a" not in ledger.entered
        head = await shared.saga_meta(saga.saga_id)
        assert head is not None
        assert head.owner is None
        ledger.hold["keep"].set()
        async with Node(shared, ledger.register) as other:
            assert (await other.manager.saga_handle(saga.saga_id).result()).completed


async def test_a_second_stop_in_a_hurry_cuts_off_what_the_first_waits_for(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register, drain_timeout=1000) as node:
        await begin(node, step("a"))
        await until(lambda: ledger.entered)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.manager.stop)
            await trio.sleep(10)
            await node.manager.stop(hurry=True)
            assert trio.current_time() - began < 20
        assert only_saga(shared).owner is None
        await node.manager.stop(hurry=True)  # there is nothing left to stop
