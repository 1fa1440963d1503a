"""A manager that does not work: it submits, looks and steers, and other processes run what it started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, InvalidInput, MemoryStorage, OperationStatus, SagaStateError
from runtime.nodes import Ledger, step


def parks() -> list[dict[str, Any]]:
    """Steps that end parked where ``bad`` fails."""
    pay, bad = (
        {key: value for key, value in step(name).items() if not key.startswith(("compensation", "retry"))}
        for name in ("pay", "bad")
    )
    return [{**pay, "kind": "pivot"}, {**bad, "kind": "retriable", "max_retries": 0}]


@pytest.fixture
async def steering(shared: MemoryStorage) -> AsyncIterator[BackgroundOperationsManager]:
    async with BackgroundOperationsManager(storage=shared, works=False) as made:
        yield made


def worker(shared: MemoryStorage, ledger: Ledger) -> BackgroundOperationsManager:
    made = BackgroundOperationsManager(storage=shared)
    ledger.register(made)
    return made


async def test_it_is_no_worker_and_runs_nothing(
    autojump_clock: MockClock, steering: BackgroundOperationsManager
) -> None:
    handle = await steering.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
    await trio.sleep(60)
    assert await steering.list_workers() == []
    assert await handle.status() is OperationStatus.PENDING


async def test_what_it_starts_is_run_by_others(
    autojump_clock: MockClock, steering: BackgroundOperationsManager, shared: MemoryStorage, ledger: Ledger
) -> None:
    options: dict[str, Any] = {"tenant_id": "t", "workflow_type": "w", "steps": [step("a")], "idempotency_key": "k"}
    handle = await steering.start_saga(**options)
    assert (await steering.start_saga(**options)).saga_id == handle.saga_id
    created = await steering.create_saga_workflow("t", "w", [step("b")])
    async with worker(shared, ledger):
        assert (await handle.result()).completed
        assert (await steering.get_saga(created.saga_id)).status is OperationStatus.PENDING
        assert await steering.execute_saga_workflow(created.saga_id)
        assert (await steering.start_saga(**options)).saga_id == handle.saga_id
    assert ledger.effects == ["a", "b"]


async def test_it_steers_what_others_run(
    autojump_clock: MockClock, steering: BackgroundOperationsManager, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["bad"] = ValueError("no")
    async with worker(shared, ledger):
        parked = await steering.start_saga(tenant_id="t", workflow_type="w", steps=parks())
        assert (await parked.result()).status is OperationStatus.FAILED
        ledger.failing.clear()
        await steering.retry_saga(parked.saga_id, "mended")
        assert (await parked.result()).completed
        with pytest.raises(SagaStateError):
            await steering.retry_saga(parked.saga_id)
    resumed = [entry for entry in await steering.get_saga_history(parked.saga_id) if entry.event == "saga_resumed"]
    assert [entry.details for entry in resumed] == [{"reason": "mended"}]


async def test_a_decision_is_stored_where_no_worker_is(
    autojump_clock: MockClock, steering: BackgroundOperationsManager, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["bad"] = ValueError("no")
    async with worker(shared, ledger):
        parked = await steering.start_saga(tenant_id="t", workflow_type="w", steps=parks())
        await parked.result()
    ledger.failing.clear()
    await steering.retry_saga(parked.saga_id)
    saga = await steering.get_saga(parked.saga_id)
    assert (saga.status, saga.owner) == (OperationStatus.IN_PROGRESS, None)
    async with worker(shared, ledger):
        assert (await parked.result()).completed


async def test_lists_know_times(autojump_clock: MockClock, steering: BackgroundOperationsManager) -> None:
    before = datetime.now(UTC)
    first = await steering.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
    await trio.sleep(3600)
    second = await steering.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
    between = before + timedelta(minutes=30)

    async def ids(**times: Any) -> list[str]:
        return [saga.saga_id for saga in (await steering.list_sagas(**times)).sagas]

    assert await ids(created_after=between) == [second.saga_id]
    assert await ids(created_before=between) == [first.saga_id]
    assert await ids(created_after=before - timedelta(days=1), created_before=between) == [first.saga_id]
    assert await ids(created_after=between, created_before=between) == []
    with pytest.raises(InvalidInput, match="created_after: must be a datetime with a time zone"):
        await steering.list_sagas(created_after=datetime(2026, 1, 1))
