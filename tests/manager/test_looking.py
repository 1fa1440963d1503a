"""What the manager tells of the whole: counts, workers, notes, the storage's condition."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    InvalidInput,
    MemoryStorage,
    NotStarted,
    OperationStatus,
    SagaNotFound,
    Verdict,
)
from runtime.nodes import Ledger, Node, step, until


@pytest.fixture
async def manager(autojump_clock: MockClock) -> AsyncIterator[BackgroundOperationsManager]:
    async with BackgroundOperationsManager(storage=MemoryStorage()) as manager:
        Ledger().register(manager)
        yield manager


async def test_sagas_are_counted_by_status(manager: BackgroundOperationsManager) -> None:
    await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])).result()
    await manager.create_saga_workflow("t", "w", [step("a")])
    counts = await manager.count_sagas()
    assert {status for status, count in counts.items() if count} == {OperationStatus.PENDING, OperationStatus.COMPLETED}
    assert OperationStatus.UNKNOWN not in counts


@pytest.mark.parametrize("status", ["unknown", "lost", ""])  # the first is one of steps
async def test_a_status_that_no_saga_can_have_is_refused(manager: BackgroundOperationsManager, status: str) -> None:
    with pytest.raises(InvalidInput, match="status: there is no status"):
        await manager.list_sagas(status=status)


async def test_parked_is_accepted_for_failed(manager: BackgroundOperationsManager) -> None:
    handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
    await handle.result()
    assert (await manager.list_sagas(status="parked")).sagas == (await manager.list_sagas(status="failed")).sagas == []
    assert OperationStatus("parked") is OperationStatus.FAILED


async def test_workers_are_told_alive_or_lost(autojump_clock: MockClock) -> None:
    shared, ledger = MemoryStorage(), Ledger()
    ledger.hold["a"] = trio.Event()
    async with Node(shared, ledger.register) as first:
        await first.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
        await until(lambda: ledger.entered == ["a"])
        (worker,) = await first.manager.list_workers()
        assert worker.alive
        assert worker.worker_id.startswith(f"{worker.host}:{worker.pid}:")
        assert worker.started_at < worker.lease_until
        await first.kill()
        async with Node(shared, lambda _manager: None) as looking:
            looking.worker._recovery.pause()  # it adopts nothing: it only looks
            await trio.sleep(30)
            alive = {other.worker_id: other.alive for other in await looking.manager.list_workers()}
            assert alive == {worker.worker_id: False, looking.worker.worker_id: True}


async def test_a_note_stands_in_the_history_and_changes_nothing(manager: BackgroundOperationsManager) -> None:
    handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
    await handle.result()
    before = await manager.get_saga(handle.saga_id)
    await manager.add_saga_note(handle.saga_id, "called_back", {"who": "otto", "event": "no"})
    note = (await manager.get_saga_history(handle.saga_id))[-1]
    assert (note.event, note.sequence, note.details) == ("called_back", None, {"who": "otto"})
    assert await manager.get_saga(handle.saga_id) == before
    with pytest.raises(SagaNotFound):
        await manager.add_saga_note("0mjq3v1y8k-6v3m2p9q4r7t-00", "x", {})
    with pytest.raises(InvalidInput):
        await manager.add_saga_note(handle.saga_id, "x", {"bytes": b""})


async def test_the_storage_is_examined_without_a_start() -> None:
    manager = BackgroundOperationsManager(storage=MemoryStorage())
    findings = await manager.examine()
    assert {finding.verdict for finding in findings} == {Verdict.ADVICE, Verdict.OK}
    with pytest.raises(NotStarted):
        await manager.count_sagas()


HALF = "\udcff"  # what `os.fsdecode` makes of a byte that is no text
SAGA = {"tenant_id": "t", "workflow_type": "w", "steps": [step("a")]}


@pytest.mark.parametrize(
    ("method", "arguments", "field"),
    [
        *(
            (method, (bad, *more), "saga_id")
            for bad in (None, 5, HALF, f"{HALF}-00")
            for method, more in (
                ("get_saga", ()),
                ("get_saga_history", ()),
                ("execute_saga_workflow", ()),
                ("add_saga_note", ("event", {})),
                ("cancel_saga", ()),
                ("retry_saga", ()),
            )
        ),
        *(("list_sagas", {"limit": bad}, "limit") for bad in (None, 1.5, True, "7", 0, 1001)),
        *(("list_sagas", {"cursor": bad}, "cursor") for bad in (1, HALF)),
        *(("list_sagas", {"tenant_id": bad}, "tenant_id") for bad in (1, HALF)),
        *(("list_sagas", {"workflow_type": bad}, "workflow_type") for bad in (1, HALF)),
        *(("list_idempotency_keys", {"limit": bad}, "limit") for bad in (None, 1.5, True)),
        *(("list_idempotency_keys", {"cursor": bad}, "cursor") for bad in (1, HALF)),
        *(("list_idempotency_keys", {"tenant_id": bad}, "tenant_id") for bad in (1, HALF)),
        *(("check_idempotency", {"key": bad, "tenant_id": "t"}, "key") for bad in (1, HALF)),
        *(("check_idempotency", {"key": "k", "tenant_id": bad}, "tenant_id") for bad in (1, HALF)),
        *(("create_idempotency_key", ("t", "u", "o", bad), "key") for bad in (1, HALF)),
        *(("run_idempotent", {"tenant_id": "t", "operation_type": "o", "key": bad}, "key") for bad in (1, HALF)),
        *(("start_saga", {**SAGA, "idempotency_key": bad}, "idempotency_key") for bad in (1, HALF)),
        *(("create_saga_workflow", {**SAGA, "idempotency_key": bad}, "idempotency_key") for bad in (1, HALF)),
    ],
)
async def test_what_can_be_no_name_of_anything_is_refused_by_field(
    manager: BackgroundOperationsManager, method: str, arguments: tuple[Any, ...] | dict[str, Any], field: str
) -> None:
    positional, named = ((), arguments) if isinstance(arguments, dict) else (arguments, {})
    with pytest.raises(InvalidInput) as refused:
        await getattr(manager, method)(*positional, **named)
    assert refused.value.field == field


@pytest.mark.parametrize("bad", [None, 5, HALF])
async def test_there_is_no_handle_for_what_is_no_id(manager: BackgroundOperationsManager, bad: Any) -> None:
    with pytest.raises(InvalidInput, match="saga_id"):
        manager.saga_handle(bad)
