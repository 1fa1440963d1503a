"""An operator decides about a parked saga while the storage, or the worker here, goes away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    MemoryStorage,
    NonRetryableError,
    OperationStatus,
    SagaHandle,
    SagaStateError,
    StorageUnavailable,
)
from runtime.nodes import Ledger, Node, Wire, at_call, lose_reply, step, until

APPEND = frozenset({"append"})


async def parked(node: Node, ledger: Ledger) -> SagaHandle:
    ledger.failing["a"] = NonRetryableError("no")
    steps = [step("pay", kind="pivot"), step("a", kind="retriable")]
    handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
    assert (await handle.result()).status is OperationStatus.FAILED
    ledger.failing.clear()
    return handle


async def test_who_decides_is_told_when_the_storage_stays_away(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async def go_away(wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
        wire.away = True
        return await call()

    async with Node(shared, ledger.register) as node:
        handle = await parked(node, ledger)
        node.wire.fault = at_call(0, go_away, APPEND)
        with trio.fail_after(60), pytest.raises(StorageUnavailable):
            await node.manager.retry_saga(handle.saga_id)
        await trio.sleep(60)
        node.wire.away = False
        await trio.sleep(60)
        assert await handle.status() is OperationStatus.FAILED
        await node.manager.retry_saga(handle.saga_id)
        assert (await handle.result()).completed
    assert ledger.effects == ["pay", "a"]


async def test_a_decision_that_is_stored_as_the_worker_stops_is_confirmed_and_carried_out_elsewhere(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node, trio.open_nursery() as nursery:
        handle = await parked(node, ledger)
        worker = node.worker

        async def stop_meanwhile(_wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
            nursery.start_soon(node.manager.stop)
            await worker._supervisor.stopping.wait()
            return await call()

        node.wire.fault = at_call(0, stop_meanwhile, APPEND)
        await node.manager.retry_saga(handle.saga_id)
    async with Node(shared, ledger.register) as other:
        assert (await other.manager.saga_handle(handle.saga_id).result()).completed
    assert ledger.effects == ["pay", "a"]


async def test_who_decides_a_moment_later_leaves_the_saga_to_whom_has_begun_to_carry_it_out(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    taken, seen = trio.Event(), trio.Event()

    async def decide_when_seen(_wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
        taken.set()
        await seen.wait()
        return await call()

    async def take_what_runs(_wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
        seen.set()
        await until(lambda: ledger.entered.count("a") > attempts)
        return await call()

    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        handle = await parked(first, ledger)
        attempts = ledger.entered.count("a")
        ledger.hold["a"] = trio.Event()
        first.wire.fault = at_call(0, decide_when_seen, APPEND)
        second.wire.fault = at_call(0, take_what_runs, frozenset({"adopt_saga"}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.manager.retry_saga, handle.saga_id)
            await taken.wait()
            with pytest.raises(SagaStateError):
                await second.manager.retry_saga(handle.saga_id)
        ledger.hold["a"].set()
        assert (await handle.result()).completed
    assert ledger.entered.count("a") == attempts + 1


@pytest.mark.parametrize("stored", [False, True], ids=["on its way", "without an answer yet"])
async def test_a_decision_that_is_being_stored_is_not_taken_for_one_that_got_lost(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, *, stored: bool
) -> None:
    async def take_long(_wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if not stored:
            await trio.sleep(5)
            return await call()
        answer = await call()
        await trio.sleep(5)
        return answer

    async with Node(shared, ledger.register) as node:
        handle = await parked(node, ledger)
        node.wire.fault = at_call(0, lose_reply, frozenset({"adopt_saga"}))
        with pytest.raises(StorageUnavailable):
            await node.manager.retry_saga(handle.saga_id)
        node.wire.fault = at_call(0, take_long, APPEND)
        await node.manager.retry_saga(handle.saga_id)
        outcome = await handle.result()
        assert outcome.completed
        meta = await shared.saga_meta(handle.saga_id)
        assert meta is not None
        assert meta.epoch == 3
    assert ledger.effects == ["pay", "a"]


async def test_a_decision_made_where_no_worker_runs_is_not_taken_for_what_a_lost_worker_left(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async def take_long(_wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
        await trio.sleep(8)
        return await call()

    async with Node(shared, ledger.register) as working, Node(shared, ledger.register, works=False) as steering:
        handle = await parked(working, ledger)
        steering.wire.fault = at_call(0, take_long, APPEND)
        await steering.manager.retry_saga(handle.saga_id)
        assert (await handle.result()).completed
        await trio.sleep(60)
        assert len(await shared.list_workers()) == 1
    assert ledger.effects == ["pay", "a"]


async def test_a_saga_that_has_ended_since_it_was_seen_parked_cannot_be_cancelled(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        ledger.failing = {"b": NonRetryableError("no"), "undo a": NonRetryableError("no")}
        handle = await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b")])
        assert (await handle.result()).status is OperationStatus.FAILED
        ledger.failing.clear()

        async def look_late(_wire: Wire, _verb: str, call: Callable[[], Awaitable[Any]]) -> Any:
            await first.manager.retry_saga(handle.saga_id, from_step="b")
            assert (await handle.result()).completed
            return await call()

        second.wire.fault = at_call(0, look_late, frozenset({"load_saga"}))
        with pytest.raises(SagaStateError, match="completed"):
            await second.manager.cancel_saga(handle.saga_id)
