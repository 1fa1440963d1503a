"""Faults that an earlier implementation had, each by its number: none may come back.

Those of Redis alone and of the HTTP middleware are tested beside these parts.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    ClaimLost,
    MemoryStorage,
    OperationStatus,
    StorageUnavailable,
)
from dotmac.tasks.errors import LockLost
from runtime.nodes import Ledger, Node, step, until

ASK: dict[str, Any] = {"tenant_id": "t", "operation_type": "do", "parameters": {"name": "a"}}
ONCE = {"max_retries": 0}


async def test_fault_1_a_key_whose_optional_parts_are_all_missing_can_be_created_and_completed(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with BackgroundOperationsManager(storage=shared) as manager:
        key = await manager.create_idempotency_key("t", None, "op")
        assert (key.user_id, key.parameters, key.result, key.error) == (None, None, None, None)
        await manager.complete_idempotent_operation(key.key, None)
        found = await manager.check_idempotency(key.key)
        assert found is not None
        assert (found.status, found.result) == (OperationStatus.COMPLETED, None)


@pytest.mark.parametrize("callers", [2, 8, 32, 64])
async def test_fault_2_requests_that_come_at_once_run_once(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, callers: int
) -> None:
    async def slowly(_wire: Any, _verb: str, call: Any) -> Any:
        await trio.sleep(0.1)
        return await call()

    async with Node(shared, ledger.register) as node:
        node.wire.fault = slowly
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(lambda: node.manager.run_idempotent(**ASK))
    assert ledger.effects == ["a"]


async def test_fault_3_creating_does_not_overwrite_and_only_the_claim_s_holder_completes(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as node, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: node.manager.run_idempotent(**ASK))
        await until(lambda: ledger.entered)
        again = await node.manager.create_idempotency_key("t", None, "do", parameters={"name": "a"})
        assert again.status is OperationStatus.IN_PROGRESS
        with pytest.raises(ClaimLost):
            await node.manager.complete_idempotent_operation(again.key, {"mine": True})
        ledger.hold["a"].set()
    assert ledger.effects == ["a"]


async def test_fault_4_an_error_of_the_storage_is_raised_and_never_looks_like_an_unknown_key(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        await node.manager.run_idempotent(**ASK)
        node.wire.away = True
        for call in (
            lambda: node.manager.check_idempotency("key"),
            lambda: node.manager.run_idempotent(**ASK),
            lambda: node.manager.create_idempotency_key("t", None, "op"),
            lambda: node.manager.get_saga("id"),
        ):
            with pytest.raises(StorageUnavailable):
                await call()
        node.wire.away = False
    assert ledger.effects == ["a"]


async def test_fault_5_the_cleanup_removes_what_has_expired_and_nothing_else(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with BackgroundOperationsManager(storage=shared, cleanup_interval=60) as manager:
        short = await manager.create_idempotency_key("t", None, "short", ttl=100)
        long = await manager.create_idempotency_key("t", None, "long", ttl=100_000)
        await trio.sleep(3 * 3600)
        assert await manager.check_idempotency(short.key) is None
        assert await manager.check_idempotency(long.key) is not None
    assert set(shared._records) == {long.key}


async def test_fault_6_everything_goes_on_working_after_the_cleanup(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    manager = BackgroundOperationsManager(storage=shared)  # with its defaults
    ledger.register(manager)
    async with manager:
        await manager.run_idempotent(**ASK, ttl=1)
        await trio.sleep(3 * 3600)
        with trio.fail_after(1):
            await manager.run_idempotent(**ASK)
            handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("b")])
            assert (await handle.result()).completed
    assert ledger.effects == ["a", "a", "b"]


async def test_fault_10_an_error_frees_its_key_at_once(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["a"] = ValueError("no")
    async with Node(shared, ledger.register) as node:
        with pytest.raises(ValueError, match="no"):
            await node.manager.run_idempotent(**ASK)
        ledger.failing.clear()
        with trio.fail_after(1):
            assert await node.manager.run_idempotent(**ASK) == {"name": "a"}


async def test_fault_12_a_dead_worker_s_saga_goes_on_within_its_lease_with_its_start_journaled_and_the_same_token(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        handle = await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
        await until(lambda: ledger.entered)
        saga = await second.manager.get_saga(handle.saga_id)
        assert (saga.status, saga.steps[0].status) == (OperationStatus.IN_PROGRESS, OperationStatus.IN_PROGRESS)
        await first.kill()
        ledger.hold.clear()
        with trio.fail_after(20):
            assert (await second.manager.saga_handle(handle.saga_id).result()).completed
    assert len(ledger.tokens["a"]) == 1


async def test_fault_13_a_process_that_dies_before_the_saga_s_last_word_leaves_a_saga_that_ends(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async def die_at_the_end(wire: Any, verb: str, call: Any) -> Any:
        if verb == "append" and "b" in ledger.effects:
            wire.kill()
            await trio.sleep_forever()
        return await call()

    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        first.wire.fault = die_at_the_end
        handle = await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b")])
        with trio.fail_after(60):
            assert (await second.manager.saga_handle(handle.saga_id).result()).completed


@pytest.mark.parametrize("at", ["undo b", "undo a"])
async def test_fault_14_a_saga_that_turned_back_never_runs_forward_again(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, at: str
) -> None:
    ledger.failing["c"] = ValueError("no")
    ledger.hold[at] = trio.Event()
    async with Node(shared, ledger.register) as first, Node(shared, ledger.register) as second:
        steps = [step("a"), step("b"), step("c", max_retries=0)]
        handle = await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        await until(lambda: at in ledger.entered)
        await first.kill()
        ledger.hold.clear()
        ledger.failing.clear()
        assert await second.manager.execute_saga_workflow(handle.saga_id) is False
        assert await second.manager.execute_saga_workflow(handle.saga_id) is False
        assert (await second.manager.get_saga(handle.saga_id)).status is OperationStatus.COMPENSATED
    assert ledger.effects == ["a", "b", "undo b", "undo a"]


async def test_fault_15_nobody_frees_the_lock_of_another(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    assert await shared.acquire_lock("k", 10)
    assert not await shared.acquire_lock("k", 10)
    mine = shared._seed_locks.pop("k")
    with pytest.raises(LockLost):
        await shared.release_lock("k")
    assert not await shared.acquire_lock("k", 10)
    shared._seed_locks["k"] = mine
    await trio.sleep(11)
    assert await shared.acquire_lock("k", 10)  # its lease is over; the next one has it under a token of its own
    assert shared._seed_locks["k"] != mine


async def test_fault_16_a_saga_s_time_ends_it_and_a_late_one_undoes_what_it_did_also_after_a_restart(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.hold["b"] = trio.Event()
    async with Node(shared, ledger.register) as first:
        steps = [step("a"), step("b")]
        options: dict[str, Any] = {"tenant_id": "t", "workflow_type": "w", "timeout_seconds": 5}
        begin = trio.current_time()
        handle = await first.manager.start_saga(steps=steps, **options)
        assert not (await handle.result()).completed
        assert trio.current_time() - begin == pytest.approx(5)
        assert ledger.effects == ["a", "undo b", "undo a"]
        ledger.effects.clear()
        ledger.entered.clear()
        handle = await first.manager.start_saga(steps=steps, **options)
        await until(lambda: "b" in ledger.entered)
        await first.kill()
    ledger.hold.clear()
    async with Node(shared, ledger.register) as second:
        assert not (await second.manager.saga_handle(handle.saga_id).result()).completed
    assert ledger.effects == ["a", "undo b", "undo a"]


async def test_fault_17_a_plain_function_is_called_once_when_it_succeeds(shared: MemoryStorage) -> None:
    calls: list[dict[str, Any]] = []
    async with BackgroundOperationsManager(storage=shared) as manager:

        @manager.register_operation_handler("op")
        def op(parameters: dict[str, Any]) -> dict[str, Any]:
            calls.append(parameters)
            return {"n": len(calls)}

        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[{"name": "a", "operation": "op"}])
        assert (await handle.result()).results == {"a": {"n": 1}}
    assert calls == [{}]


async def test_fault_18_a_failed_compensation_is_retried_journaled_and_never_hidden(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing = {"undo a": ValueError("cannot"), "c": ValueError("no")}
    retry = {"max_retries": 2, "initial_delay": 1.0}
    async with Node(shared, ledger.register) as node:
        steps = [step("a", compensation_retry=retry), step("b"), step("c", retry=ONCE)]
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        outcome = await handle.result()
        assert outcome.status is OperationStatus.FAILED
        assert "'a'" in outcome.open_items[0]
        assert "cannot" in outcome.open_items[0]
        saga = await handle.get()
        assert saga.steps[0].compensation_status is OperationStatus.FAILED
        assert saga.steps[1].compensation_status is OperationStatus.COMPLETED
        events = [line.event for line in await node.manager.get_saga_history(handle.saga_id)]
    assert ledger.entered.count("undo a") == 3
    assert (events.count("compensation_failed"), events.count("compensation_completed")) == (3, 1)


async def test_fault_20_stopping_keeps_the_data(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
        await handle.result()
        key = await node.manager.create_idempotency_key("t", None, "op")
    async with Node(shared, ledger.register) as node:
        assert (await node.manager.get_saga(handle.saga_id)).status is OperationStatus.COMPLETED
        assert await node.manager.check_idempotency(key.key) is not None


def test_fault_20_another_package_can_live_under_the_same_namespace(tmp_path: Path) -> None:
    (tmp_path / "dotmac" / "other").mkdir(parents=True)
    (tmp_path / "dotmac" / "other" / "__init__.py").write_text("here = True\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport dotmac.tasks, dotmac.other as o; print(o.here)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"
