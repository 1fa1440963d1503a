"""Cancelling a saga at each phase of its life, from its own process and from another one."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    MemoryStorage,
    OperationStatus,
    OutcomeUnknown,
    RetryPolicy,
    SagaStateError,
)
from runtime.nodes import Fault, Ledger, Node, Wire, at_call, die_after, die_before, lose_reply, refuse, step, until

COMPENSATED = OperationStatus.COMPENSATED
SLOW = RetryPolicy(initial_delay=500, max_delay=500, jitter=False)


@pytest.fixture(params=["the same process", "another process"])
def elsewhere(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "another process")


async def begin(node: Node, *steps: dict[str, Any]) -> Any:
    return await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=list(steps))


async def both(shared: MemoryStorage, ledger: Ledger, elsewhere: bool) -> Any:
    """A node that runs sagas, and the manager that cancels them."""
    node, other = Node(shared, ledger.register), Node(shared, ledger.register)
    return node, (other if elsewhere else node)


async def cancelled_within(node: Node, other: Node, saga_id: str, seconds: float) -> Any:
    with trio.fail_after(seconds):
        handle = await other.manager.cancel_saga(saga_id, "changed my mind")
        await handle.result()
    return await node.manager.get_saga(saga_id)


async def test_a_pending_saga_never_begins(autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger) -> None:
    async with Node(shared, ledger.register) as node:
        saga = await node.manager.create_saga_workflow("t", "w", [step("a")])
        saga = await cancelled_within(node, node, saga.saga_id, 3)
        assert not await node.manager.execute_saga_workflow(saga.saga_id)
    assert (saga.status, saga.error, ledger.entered) == (COMPENSATED, "cancelled: changed my mind", [])


async def test_a_running_step_is_cut_off_and_undone(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, elsewhere: bool
) -> None:
    ledger.hold["b"] = trio.Event()
    node, other = await both(shared, ledger, elsewhere)
    async with node, Node(shared, ledger.register) if not elsewhere else other:
        handle = await begin(node, step("a"), step("b"), step("c"))
        await until(lambda: "b" in ledger.entered)
        saga = await cancelled_within(node, other, handle.saga_id, 1)
    assert (saga.status, ledger.effects) == (COMPENSATED, ["a", "undo b", "undo a"])


async def test_a_saga_that_waits_for_a_retry_turns_back_at_once(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, elsewhere: bool
) -> None:
    ledger.failing["b"] = ValueError("no")
    for passivate_after in (60, 1000):
        ledger.effects.clear()
        node = Node(shared, ledger.register, passivate_after=passivate_after)
        other = Node(shared, ledger.register) if elsewhere else node
        async with node:
            if elsewhere:
                await other.manager.start()
            handle = await begin(node, step("a"), step("b", retry=SLOW))
            await until(lambda: "b" in ledger.entered)
            await trio.sleep(5)
            saga = await cancelled_within(node, other, handle.saga_id, 3)
            if elsewhere:
                await other.manager.stop()
        assert (saga.status, ledger.effects) == (COMPENSATED, ["a", "undo a"])


async def test_undoing_is_not_disturbed(autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger) -> None:
    ledger.failing["b"] = ValueError("no")
    ledger.hold["undo a"] = trio.Event()
    async with Node(shared, ledger.register) as node:
        handle = await begin(node, step("a"), step("b", max_retries=0))
        await until(lambda: "undo a" in ledger.entered)
        await handle.cancel("again")
        await trio.sleep(30)
        ledger.hold["undo a"].set()
        assert (await handle.result()).status is COMPENSATED
    assert ledger.entered.count("undo a") == 1


async def test_a_running_pivot_finishes_and_the_cancel_says_that_it_may_be_too_late(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, elsewhere: bool
) -> None:
    for fails in (False, True):
        ledger.__init__()  # type: ignore[misc]  # a fresh ledger under the handlers that are registered
        ledger.hold["p"] = trio.Event()
        node, other = await both(shared, ledger, elsewhere)
        async with node:
            if elsewhere:
                await other.manager.start()
            handle = await begin(node, step("a"), step("p", kind="pivot"), step("c", kind="retriable"))
            await until(lambda: "p" in ledger.entered)
            with pytest.raises(SagaStateError, match="pivot 'p' is running"):
                await other.manager.cancel_saga(handle.saga_id)
            await trio.sleep(20)
            assert ledger.entered == ["a", "p"]
            if fails:
                ledger.failing["p"] = ValueError("no")
            ledger.hold["p"].set()
            outcome = await handle.result()
            if elsewhere:
                await other.manager.stop()
        assert ledger.effects == (["a", "undo a"] if fails else ["a", "p", "c"])
        assert outcome.status is (COMPENSATED if fails else OperationStatus.COMPLETED)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_running_pivot_in_a_thread_finishes_too(shared: MemoryStorage, elsewhere: bool, fails: bool) -> None:
    entered, leave = threading.Event(), threading.Event()

    def pivot(_parameters: dict[str, Any]) -> None:
        entered.set()
        assert leave.wait(30)
        if fails:
            raise ValueError("no")

    def register(manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("pivot", pivot)

    node, spare = Node(shared, register), Node(shared, register)
    other = spare if elsewhere else node
    async with node, spare:
        handle = await begin(node, {"name": "p", "operation": "pivot", "kind": "pivot"})
        await trio.to_thread.run_sync(entered.wait)
        with pytest.raises(SagaStateError, match="pivot 'p' is running"):
            await other.manager.cancel_saga(handle.saga_id)
        actor = node.worker.sagas.get(handle.saga_id)
        assert actor is not None
        await until(lambda: actor.journal.state.cancel is not None)
        leave.set()
        with trio.fail_after(30):
            outcome = await handle.result()
    assert outcome.status is (COMPENSATED if fails else OperationStatus.COMPLETED)


async def test_after_its_pivot_and_after_its_end_a_saga_refuses(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["c"] = trio.Event()
    async with Node(shared, ledger.register) as node:
        handle = await begin(node, step("a"), step("p", kind="pivot"), step("c", kind="retriable"))
        await until(lambda: "c" in ledger.entered)
        with pytest.raises(SagaStateError, match="pivot"):
            await handle.cancel()
        ledger.hold["c"].set()
        assert (await handle.result()).completed
        with pytest.raises(SagaStateError, match="completed"):
            await handle.cancel()


async def test_a_saga_parked_at_an_unknown_pivot_turns_back_when_told(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, elsewhere: bool
) -> None:
    ledger.failing["p"] = OutcomeUnknown("who knows")
    node, other = await both(shared, ledger, elsewhere)
    async with node:
        if elsewhere:
            await other.manager.start()
        handle = await begin(node, step("a"), step("p", kind="pivot", max_retries=0))
        outcome = await handle.result()
        assert outcome.status is OperationStatus.FAILED
        assert "'p'" in outcome.open_items[0]
        saga = await cancelled_within(node, other, handle.saga_id, 3)
        if elsewhere:
            await other.manager.stop()
    assert (saga.status, ledger.effects) == (COMPENSATED, ["a", "undo a"])


async def test_a_saga_parked_for_another_reason_refuses(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing = {"b": ValueError("no"), "undo a": ValueError("no")}
    async with Node(shared, ledger.register) as node:
        handle = await begin(node, step("a", compensation_retry={"max_retries": 0}), step("b", max_retries=0))
        assert (await handle.result()).status is OperationStatus.FAILED
        with pytest.raises(SagaStateError, match="parked"):
            await handle.cancel()


@pytest.mark.parametrize("after", range(0, 60, 3))
async def test_a_cancel_at_any_moment_never_leaves_a_forward_step_after_an_undo(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, after: int
) -> None:
    ledger.failing["c"] = ValueError("no")
    async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
        node.wire.fault = slowly
        handle = await begin(node, step("a"), step("b"), step("c", retry={"max_retries": 2, "initial_delay": 1}))
        await trio.sleep(after / 10)
        try:
            await other.manager.cancel_saga(handle.saga_id)
        except SagaStateError:
            assert (await handle.status()).is_final
        assert (await handle.result()).status is COMPENSATED
    forward = [name for name in ledger.effects if "undo" not in name]
    assert ledger.effects[: len(forward)] == forward
    assert [f"undo {name}" for name in reversed(forward)] == [n for n in ledger.effects if n in ("undo a", "undo b")]


async def slowly(_wire: Any, verb: str, call: Any) -> Any:
    await trio.sleep(0.2 if verb != "renew_worker" else 0)
    return await call()


async def test_many_cancels_at_once_cost_the_worker_no_lease(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async def slow_look_ups(_wire: Wire, verb: str, call: Callable[[], Awaitable[object]]) -> object:
        if verb == "saga_meta":
            await trio.sleep(1.0)
        return await call()

    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register, worker_lease=6.0) as node, Node(shared, ledger.register) as other:
        handles = [await begin(node, step("a")) for _ in range(30)]
        await until(lambda: len(ledger.entered) == 30)
        node.wire.fault = slow_look_ups
        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(other.manager.cancel_saga, handle.saga_id)
        for handle in handles:
            assert (await handle.result()).status is COMPENSATED
        assert "adopt_saga" not in other.wire.calls + node.wire.calls


@pytest.mark.parametrize("within", ["a", "b"])
async def test_a_handler_that_cancels_its_own_saga_turns_it_back(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, within: str
) -> None:
    node = Node(shared, ledger.register)

    async def cancels(parameters: dict[str, Any], context: Any) -> str:
        if parameters["name"] == within:
            with trio.CancelScope(shield=True):  # the handler ignores the cancellation that follows
                await node.manager.cancel_saga(context.saga_id, "no need")
        ledger.effects.append(parameters["name"])
        return "done all the same"

    node.manager.register_operation_handler("cancels", cancels)
    async with node:
        outcome = await (await begin(node, *(step(name, operation="cancels") for name in "ab"))).result()
    assert (outcome.status, outcome.error) == (COMPENSATED, "cancelled: no need")
    forward = ["a"] if within == "a" else ["a", "b"]
    assert ledger.effects == [*forward, *(f"undo {name}" for name in reversed(forward))]


async def test_a_pivot_that_cancels_its_own_saga_is_refused(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    node = Node(shared, ledger.register)
    refusals: list[SagaStateError] = []

    async def cancels(_parameters: dict[str, Any], context: Any) -> None:
        try:
            await node.manager.cancel_saga(context.saga_id)
        except SagaStateError as error:
            refusals.append(error)

    node.manager.register_operation_handler("cancels", cancels)
    async with node:
        assert (await (await begin(node, step("p", operation="cancels", kind="pivot"))).result()).completed
    assert len(refusals) == 1


@pytest.mark.parametrize("fault", [lose_reply, refuse])
async def test_a_cancel_that_meets_the_last_append_turns_the_saga_back(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, fault: Fault
) -> None:
    async def first_cancel(wire: Wire, verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if verb != "append" or wire.calls.count("append") > 3:
            return await call()
        await other.manager.cancel_saga(handle.saga_id, "just in time")
        return await fault(wire, verb, call)

    async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
        ledger.hold["a"] = trio.Event()
        handle = await begin(node, step("a"))
        await until(lambda: ledger.entered)
        node.wire.calls.clear()
        node.wire.fault = first_cancel
        ledger.hold["a"].set()
        outcome = await handle.result()
        saga = await handle.get()
    assert (outcome.status, ledger.effects) == (COMPENSATED, ["a", "undo a"])
    assert saga.error == "cancelled: just in time"


async def test_many_cancels_are_all_acknowledged_and_the_first_reason_is_kept(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = ledger.hold["undo a"] = trio.Event()
    async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
        handle = await begin(node, step("a"))
        await until(lambda: ledger.entered)
        for number in range(50):
            await (other, node)[number % 2].manager.cancel_saga(handle.saga_id, f"reason {number}")
        await until(lambda: "undo a" in ledger.entered)
        await other.manager.cancel_saga(handle.saga_id, "while it turns back")
        ledger.hold["undo a"].set()
        assert (await handle.result()).error == "cancelled: reason 0"
        await handle.cancel("sent again after its end")
        assert (await handle.get()).error == "cancelled: reason 0"


@pytest.mark.parametrize("fault", [die_before, die_after])
@pytest.mark.parametrize("k", range(4))
async def test_an_acknowledged_cancel_outlives_the_worker(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, k: int, fault: Fault
) -> None:
    ledger.hold["b"] = trio.Event()
    async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
        handle = await begin(node, step("a"), step("b"))
        await until(lambda: "b" in ledger.entered)
        node.wire.fault = at_call(k, fault, frozenset({"append"}))
        await other.manager.cancel_saga(handle.saga_id)
        ledger.hold["b"].set()
        outcome = await other.manager.saga_handle(handle.saga_id).result()
    assert outcome.status is COMPENSATED


async def test_a_cancel_that_an_operator_overrules_in_the_same_moment_is_not_acknowledged(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async def overruled(_wire: Wire, verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if verb == "load_saga":
            assert (await handle.result()).status is OperationStatus.FAILED
            del ledger.failing["undo a"]
            await node.manager.retry_saga(handle.saga_id, from_step="b")
        return await call()

    ledger.hold["b"] = trio.Event()
    ledger.failing["undo a"] = ValueError("no")
    async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
        handle = await begin(node, step("a", compensation_retry={"max_retries": 0}), step("b"))
        await until(lambda: "b" in ledger.entered)
        other.wire.fault = overruled
        with pytest.raises(SagaStateError, match="parked and resumed"):
            await other.manager.cancel_saga(handle.saga_id)
        ledger.hold["b"].set()
        assert (await handle.result()).completed
