"""A caller who is cancelled at any of its awaits: nothing leaks, nothing is stuck, nothing happens twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage
from runtime.nodes import Ledger, Node, only_saga, step, until

ASK: dict[str, Any] = {"tenant_id": "t", "operation_type": "do", "parameters": {"name": "a"}}
Call = Callable[[Node], Awaitable[Any]]


class CancelAtStep(trio.abc.Instrument):
    """Cancels the scope when its task is scheduled for the k-th time from now."""

    def __init__(self, scope: trio.CancelScope, k: int) -> None:
        self.scope = scope
        self.left = k
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            if self.left == 0:
                self.scope.cancel()
            self.left -= 1


async def cancelled_at(k: int, work: Callable[[], Awaitable[Any]]) -> bool:
    """Do the work, cancelled at its k-th await; whether it got that far."""
    with trio.CancelScope() as scope:
        instrument = CancelAtStep(scope, k)
        trio.lowlevel.add_instrument(instrument)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancel_called


async def start(node: Node) -> None:
    await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])


async def start_and_wait(node: Node) -> None:
    handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")], idempotency_key="k")
    await handle.result()


async def create_and_execute(node: Node) -> None:
    saga = await node.manager.create_saga_workflow("t", "w", [step("a")])
    await node.manager.execute_saga_workflow(saga.saga_id)


async def work_takes_an_await(_wire: Any, _verb: str, call: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return await call()


@pytest.mark.parametrize("call", [start, start_and_wait, create_and_execute])
async def test_a_saga_is_begun_wholly_or_not_at_all(autojump_clock: MockClock, call: Call) -> None:
    k, reached = 0, True
    while reached:
        shared, ledger = MemoryStorage(), Ledger()
        async with Node(shared, ledger.register) as node:
            node.wire.fault = work_takes_an_await
            reached = await cancelled_at(k, lambda: call(node))
            await trio.sleep(10)
            head = only_saga(shared)
            if head is not None and head.epoch > 0:
                assert head.status == "completed"
                assert ledger.effects == ["a"]
            else:
                assert ledger.effects == []
        k += 1
    assert k >= 4


async def test_an_operation_is_free_again_or_has_its_result(autojump_clock: MockClock) -> None:
    k, reached, ran_twice = 0, True, 0
    while reached:
        shared, ledger = MemoryStorage(), Ledger()
        async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
            node.wire.fault = work_takes_an_await
            reached = await cancelled_at(k, lambda: node.manager.run_idempotent(**ASK))
            finished = "a" in ledger.effects
            with trio.fail_after(2):  # far less than the lease: nobody waits for a claim that nobody holds
                assert await other.manager.run_idempotent(**ASK) == {"name": "a"}
            ran_twice += len(ledger.effects) - 1
            # Cancelled inside the handler, after its effect, it has to run again; returned once, never.
            assert len(ledger.effects) == 1 or finished
            assert len(ledger.tokens["a"]) == 1
            record = await shared.get_record(next(iter(ledger.tokens["a"])))
            assert record is not None
            assert record.status == "completed"
        k += 1
    assert k >= 5
    assert ran_twice <= 1  # the one await inside the handler after its effect


async def test_a_cancelled_wait_leaves_the_saga_alone(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as node, Node(shared, ledger.register) as other:
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
        for manager in (node.manager, other.manager):
            with trio.move_on_after(3):
                await manager.saga_handle(handle.saga_id).result()
        ledger.hold["a"].set()
        assert (await handle.result()).completed
    assert shared._watches == {}


async def test_ten_thousand_sagas_in_flight_in_one_process(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    count, leave = 10_000, trio.Event()
    entered = 0

    async def park(_parameters: Any) -> None:
        nonlocal entered
        entered += 1
        await leave.wait()

    async with Node(shared, ledger.register) as node:
        node.manager.register_operation_handler("park", park)
        handles = [
            await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[{"name": "s", "operation": "park"}])
            for _ in range(count)
        ]
        await until(lambda: entered == count)
        assert len(node.worker.sagas) == count
        await trio.sleep(60)  # leases are kept for all of them
        leave.set()
        for handle in handles:
            assert (await handle.result()).completed
        assert len(node.worker.sagas) == 0
    assert {saga.meta.epoch for saga in shared._sagas.values()} == {1}
