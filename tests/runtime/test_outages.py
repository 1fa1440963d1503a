"""The storage is away: for a moment, for longer than the lease, just when an answer was on its way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage, OperationStatus, StorageRefused, StorageUnavailable
from runtime.nodes import MUTATING, READING, Ledger, Node, Wire, at_call, lose_reply, only_saga, refuse, step, until

VERBS = MUTATING | READING


async def test_a_running_step_finishes_while_the_storage_is_away_and_the_saga_goes_on_after_it(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as node:
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b")])
        await until(lambda: ledger.entered)
        node.wire.away = True
        ledger.hold["a"].set()
        await trio.sleep(9)
        assert ledger.effects == ["a"]
        with pytest.raises(StorageUnavailable):
            await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("x")])
        node.wire.away = False
        assert (await handle.result()).completed
        assert (await handle.get()).epoch == 1
    assert ledger.effects == ["a", "b"]


async def test_an_outage_longer_than_the_lease_ends_the_actors_before_the_lease_and_a_new_worker_goes_on(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    cut_at: list[float] = []

    async def cuttable(_parameters: Any, context: Any) -> None:
        if context.attempt > 1:
            return
        try:
            await trio.sleep_forever()
        finally:
            cut_at.append(shared.now())

    async with Node(shared, ledger.register) as node:
        node.manager.register_operation_handler("cuttable", cuttable)
        handle = await node.manager.start_saga(
            tenant_id="t", workflow_type="w", steps=[step("a"), step("b", operation="cuttable")]
        )
        await trio.sleep(2)
        (worker,) = await shared.list_workers()
        node.wire.away = True
        await trio.sleep(60)
        assert cut_at
        assert cut_at[0] < worker.lease_until
        assert node.worker.worker_id == worker.worker_id if node.manager._hosted()._runtime._worker else True
        node.wire.away = False
        with trio.fail_after(30):
            assert (await handle.result()).completed
        saga = await handle.get()
        assert saga.epoch == 2
        # It serves as before: new sagas start at once.
        again = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("c")])
        assert (await again.result()).completed
    assert ledger.effects == ["a", "c"]


async def test_while_another_process_reaches_the_storage_the_saga_is_finished_there(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["b"] = trio.Event()
    async with Node(shared, ledger.register) as cut, Node(shared, ledger.register) as other:
        handle = await cut.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b"), step("c")])
        await until(lambda: "b" in ledger.entered)
        cut.wire.away = True
        await until(lambda: ledger.entered.count("b") == 2)
        ledger.hold["b"].set()
        assert (await other.manager.saga_handle(handle.saga_id).result()).completed
        cut.wire.away = False
        await trio.sleep(60)
        assert (await handle.result()).completed
    assert (ledger.effects.count("a"), ledger.effects.count("c")) == (1, 1)


@pytest.mark.parametrize("error", [StorageUnavailable("away"), StorageRefused("loading")])
@pytest.mark.parametrize("verb", sorted(VERBS - {"create_saga"}))
async def test_each_verb_may_fail_for_half_a_minute(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, verb: str, error: Exception
) -> None:
    failed: list[str] = []

    async def fails(_wire: Any, name: str, call: Any) -> Any:
        if name == verb and trio.current_time() - begin < 30:
            failed.append(name)
            raise error
        return await call()

    retry = {"max_retries": 9, "initial_delay": 3.0}
    async with Node(shared, ledger.register, cleanup_interval=5) as node:
        begin = trio.current_time()
        node.wire.fault = fails
        handle = await node.manager.start_saga(
            tenant_id="t", workflow_type="w", steps=[step("a"), step("b", retry=retry), step("c")]
        )
        await until(lambda: only_saga(shared).status is OperationStatus.COMPLETED)
        await trio.sleep(60)
        assert (await handle.result()).completed
    assert ledger.effects == ["a", "b", "c"]


@pytest.mark.parametrize("verb", ["create_saga", "adopt_saga"])
async def test_a_saga_whose_owner_never_heard_that_it_owns_it_is_run_all_the_same(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, verb: str
) -> None:
    async with Node(shared, ledger.register) as node:
        node.wire.fault = at_call(0, lose_reply, frozenset({verb}))
        with pytest.raises(StorageUnavailable):  # noqa: PT012 - what raises is the block
            if verb == "create_saga":
                await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
            else:
                saga = await node.manager.create_saga_workflow("t", "w", [step("a")])
                await node.manager.execute_saga_workflow(saga.saga_id)
        with trio.fail_after(10):
            await until(lambda: only_saga(shared).status.is_final)
    assert ledger.effects == ["a"]


async def test_a_stray_is_not_forgotten_because_the_storage_refuses_for_a_while(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async def loading(_wire: Any, verb: str, call: Any) -> Any:
        if verb == "adopt_saga" and trio.current_time() - begin < 40:
            raise StorageRefused("loading")
        return await (lose_reply(_wire, verb, call) if verb == "create_saga" else call())

    async with Node(shared, ledger.register) as node:
        begin = trio.current_time()
        node.wire.fault = loading
        with pytest.raises(StorageUnavailable):
            await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
        with trio.fail_after(120):
            await until(lambda: only_saga(shared).status.is_final)
    assert ledger.effects == ["a"]


async def test_a_key_makes_a_start_whose_answer_was_lost_safe_to_repeat(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        node.wire.fault = at_call(0, lose_reply, frozenset({"create_saga"}))
        with pytest.raises(StorageUnavailable):
            await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")], idempotency_key="k")
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")], idempotency_key="k")
        assert handle.saga_id == only_saga(shared).saga_id
        with trio.fail_after(10):
            assert (await handle.result()).completed
    assert ledger.effects == ["a"]


async def test_a_start_that_fails_leaves_nothing_running(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    node = Node(shared, ledger.register)
    before = tasks()
    node.wire.away = True
    with pytest.raises(StorageUnavailable):
        await node.manager.start()
    assert tasks() == before
    node.wire.away = False
    node.wire.fault = at_call(0, refuse, frozenset({"register_worker"}))
    with pytest.raises(StorageUnavailable):
        await node.manager.start()
    assert tasks() == before
    async with node:
        pass
    assert tasks() == before


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_a_start_that_takes_longer_than_the_lease_says_that_the_storage_is_too_slow(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    node = Node(shared, ledger.register, worker_lease=1.0)

    async def take_long(_wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
        await trio.sleep(1.5)
        return await call()

    node.wire.fault = at_call(0, take_long, frozenset({"register_worker"}))
    with pytest.raises(StorageUnavailable):
        await node.manager.start()
    async with node:
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
        assert (await handle.result()).completed
