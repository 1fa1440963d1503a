"""Hooks are told what really happened, in order; what they do in turn harms nobody."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, ClaimLost, InvalidInput, MemoryStorage, SagaNotFound
from dotmac.tasks.metrics import (
    POINTS,
    emit,
    listening,
    register_attempt_hook,
    register_metadata_hook,
    register_metrics_hooks,
    wanted,
)
from runtime.nodes import Ledger, step


@pytest.fixture
def told() -> Any:
    """Everything that was told, as (point, subject, tenant, details)."""
    lines: list[tuple[str, str, str, dict[str, Any]]] = []

    def hook_for(point: str) -> Any:
        return lambda subject, tenant, details: lines.append((point, subject, tenant, details))

    unregister = register_metrics_hooks(**{f"{point}_hook": hook_for(point) for point in POINTS})
    yield lines
    unregister()
    assert not listening()


@pytest.fixture
async def manager(autojump_clock: MockClock) -> Any:
    made = BackgroundOperationsManager(storage=MemoryStorage())
    async with made:
        yield made


def brief(told: Any) -> list[tuple[Any, ...]]:
    return [
        (point, subject, details.get("step") or details.get("status"), details.get("attempt"))
        for point, subject, _tenant, details in told
        if point != "storage_operation"
    ]


async def test_a_saga_that_turns_back_is_told_point_by_point(manager: BackgroundOperationsManager, told: Any) -> None:
    ledger = Ledger()
    ledger.register(manager)
    ledger.failing["b"] = ValueError("no")
    handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b", max_retries=1)])
    await handle.result()
    assert brief(told) == [
        ("saga_created", "w", "pending", None),
        ("saga_status_changed", "w", "in_progress", None),
        ("saga_step_started", "do", "a", 1),
        ("saga_step_completed", "do", "a", 1),
        ("saga_step_started", "do", "b", 1),
        ("saga_step_failed", "do", "b", 1),
        ("saga_step_retried", "do", "b", None),
        ("saga_step_started", "do", "b", 2),
        ("saga_step_failed", "do", "b", 2),
        ("saga_status_changed", "w", "compensating", None),
        ("saga_step_started", "undo", "a", 1),
        ("saga_step_compensated", "undo", "a", 1),
        ("saga_status_changed", "w", "compensated", None),
    ]
    of_sagas = [line for line in told if line[0] != "storage_operation"]
    assert {tenant for _, _, tenant, _ in of_sagas} == {"t"}
    assert {details["saga_id"] for _, _, _, details in of_sagas} == {handle.saga_id}
    failed = next(details for point, _, _, details in told if point == "saga_step_failed")
    assert failed["error"] == "ValueError: no"
    assert failed["seconds"] >= 0


async def test_a_saga_that_is_parked_and_retried_is_told(manager: BackgroundOperationsManager, told: Any) -> None:
    ledger = Ledger()
    ledger.register(manager)
    ledger.failing["p"] = TimeoutError("who knows")
    steps = [step("p", kind="pivot", max_retries=0)]
    handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
    await handle.result()
    ledger.failing.clear()
    await (await manager.retry_saga(handle.saga_id)).result()
    statuses = [line[2] for line in brief(told) if line[0] == "saga_status_changed"]
    assert statuses == ["in_progress", "failed", "resumed", "completed"]


async def test_keys_are_told(manager: BackgroundOperationsManager, told: Any) -> None:
    calls = iter([ValueError("not now"), None])

    async def op(_parameters: Any) -> None:
        error = next(calls)
        if error is not None:
            raise error

    manager.register_operation_handler("op", op)
    key = await manager.create_idempotency_key("t", "u", "seed")
    await manager.create_idempotency_key("t", "u", "seed")
    await manager.complete_idempotent_operation(key.key, {})
    with pytest.raises(ValueError, match="not now"):
        await manager.run_idempotent(tenant_id="t", operation_type="op")
    await manager.run_idempotent(tenant_id="t", operation_type="op")
    await manager.run_idempotent(tenant_id="t", operation_type="op")
    failing = await manager.create_idempotency_key("t", "u", "failing")
    await manager.complete_idempotent_operation(failing.key, None, "no")
    assert [(point.removeprefix("idempotency_key_"), subject) for point, subject, _, _ in told if "key" in point] == [
        ("created", "seed"),
        ("hit", "seed"),
        ("completed", "seed"),
        ("created", "op"),
        ("failed", "op"),
        ("created", "op"),
        ("completed", "op"),
        ("hit", "op"),
        ("created", "failing"),
        ("failed", "failing"),
    ]


async def test_each_call_of_the_storage_is_told(manager: BackgroundOperationsManager, told: Any) -> None:
    with pytest.raises(SagaNotFound):
        await manager.storage.append_saga_history("0mjq3v1y8k-6v3m2p9q4r7t-00", {"event": "note"})
    with pytest.raises(ClaimLost):
        await manager.storage.renew_claim("k", "token", 1.0)
    (renewal,) = [line for line in told if line[:2] == ("storage_operation", "renew_claim")]
    assert renewal[2] == ""
    assert renewal[3]["seconds"] >= 0
    assert renewal[3]["error"].startswith("ClaimLost")
    await manager.list_sagas()
    assert told[-1][:3] == ("storage_operation", "list_sagas", "")
    assert told[-1][3]["error"] is None


async def test_a_hook_takes_two_arguments_or_three(manager: BackgroundOperationsManager) -> None:
    seen: list[tuple[Any, ...]] = []
    unregister = register_metrics_hooks(
        saga_created_hook=lambda subject, tenant: seen.append((subject, tenant)),
        saga_status_changed_hook=lambda *everything: seen.append(everything),
    )
    emit("saga_created", "w", "t", saga_id="s")
    emit("saga_status_changed", "w", "t", status="completed")
    unregister()
    emit("saga_created", "w", "t")
    assert seen == [("w", "t"), ("w", "t", {"status": "completed"})]


@pytest.mark.parametrize("error", [RuntimeError("broken hook"), asyncio.CancelledError(), SystemExit(3)], ids=repr)
async def test_a_hook_that_raises_hurts_nobody_and_is_logged_once(
    manager: BackgroundOperationsManager, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """Also with what a loop or a generator of its own ended with."""

    def broken(_subject: str, _tenant: str) -> None:
        raise error

    healthy: list[str] = []
    unregister = register_metrics_hooks(saga_step_completed_hook=broken)
    also = register_metrics_hooks(saga_step_completed_hook=lambda subject, _tenant: healthy.append(subject))
    try:
        ledger = Ledger()
        ledger.register(manager)
        for _ in range(2):
            handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a"), step("b")])
            assert (await handle.result()).completed
    finally:
        unregister()
        also()
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert healthy == ["do"] * 4


def test_ctrl_c_in_a_hook_ends_the_program() -> None:
    unregister = register_metrics_hooks(saga_created_hook=lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with pytest.raises(KeyboardInterrupt):
            emit("saga_created", "w", "t")
    finally:
        unregister()


def test_a_hook_that_could_never_be_called_is_refused_and_none_is_registered() -> None:
    def one(_subject: str) -> None: ...

    for hooks in ({"saga_finished_hook": print}, {"saga_created": print}, {"saga_created_hook": one}):
        with pytest.raises(InvalidInput) as caught:
            register_metrics_hooks(storage_operation_hook=print, **hooks)
        assert caught.value.field == next(iter(hooks))
    with pytest.raises(InvalidInput):
        register_metrics_hooks(saga_created_hook="print")  # type: ignore[arg-type]  # wrong on purpose
    assert not any(wanted(point) for point in POINTS)


async def test_what_surrounds_an_attempt_learns_how_it_ended(manager: BackgroundOperationsManager) -> None:
    seen: list[tuple[Any, ...]] = []

    def around(context: Any) -> Any:
        seen.append(("begin", context.step, context.attempt))
        return lambda failure: seen.append(("end", context.step, failure))

    def broken(_context: Any) -> Any:
        raise RuntimeError("broken hook")

    unregister = [register_attempt_hook(hook) for hook in (broken, around, lambda _context: broken)]
    ledger = Ledger()
    ledger.register(manager)
    problem = ledger.failing["b"] = ValueError("no")
    steps = [step("a"), step("b", max_retries=0)]
    outcome = await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
    assert outcome.status == "compensated"
    assert seen == [
        *(("begin", "a", 1), ("end", "a", None)),
        *(("begin", "b", 1), ("end", "b", problem)),
        *(("begin", "a", 1), ("end", "a", None)),
    ]
    for remove in unregister:
        remove()
    assert not listening()


async def test_metadata_is_added_to_a_new_saga(manager: BackgroundOperationsManager) -> None:
    found: list[dict[str, str]] = []

    async def op(_parameters: Any, context: Any) -> None:
        found.append(dict(context.metadata))

    def broken(*_told: Any) -> Any:
        raise RuntimeError("broken hook")

    def add(workflow_type: str, tenant_id: str, details: dict[str, Any]) -> dict[str, str]:
        return {"seen": f"{workflow_type} {tenant_id} {details['metadata']['own']}"}

    manager.register_operation_handler("op", op)
    removals = [register_metadata_hook(hook) for hook in (broken, add)]
    one = [{"name": "a", "operation": "op"}]
    own = {"own": "1", "seen": "no"}
    handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=one, metadata=own)
    assert (await handle.result()).completed
    for remove in removals:
        remove()
    assert found == [{"own": "1", "seen": "w t 1"}]


async def test_an_attempt_is_told_with_its_duration_whatever_follows_at_once(autojump_clock: MockClock) -> None:
    told: list[float] = []
    unregister = register_metrics_hooks(
        saga_step_completed_hook=lambda _operation, _tenant, known: told.append(known["seconds"])
    )
    manager = BackgroundOperationsManager(storage=MemoryStorage())

    @manager.register_operation_handler("slow")
    async def slow(parameters: dict[str, Any]) -> None:
        await trio.sleep(parameters["seconds"])

    async with manager:
        steps = [{"name": str(n), "operation": "slow", "parameters": {"seconds": n}} for n in (3, 0, 5)]
        await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
    unregister()
    assert told == [pytest.approx(3, abs=0.1), pytest.approx(0, abs=0.1), pytest.approx(5, abs=0.1)]
