"""Sagas that the storage holds us for the owner of, while nobody runs them: each comes to its end all the same."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import InvalidInput, MemoryStorage, NonRetryableError, OperationStatus, StorageUnavailable
from dotmac.tasks.handle import SagaHandle
from dotmac.tasks.runtime.handing_over import hand_over
from dotmac.tasks.runtime.saga_actor import SagaActor
from dotmac.tasks.saga.events import SagaResumed
from dotmac.tasks.storage.records import Adoption
from runtime.nodes import Ledger, Node, Wire, at_call, lose_reply, step, until

COMPLETED, FAILED = OperationStatus.COMPLETED, OperationStatus.FAILED
ONCE = {"max_retries": 0}


async def _parked(node: Node) -> SagaHandle:
    """A saga behind its pivot, whose next step fails."""
    steps = [step("pay", kind="pivot"), step("a", kind="retriable", retry=ONCE)]
    handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
    assert (await handle.result()).status is FAILED
    return handle


async def test_a_saga_whose_actor_crashed_often_is_tried_again_however_long_its_pause(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit sees it too, and must not have it wait anew each time it looks."""
    crashes: list[float] = []
    turn = SagaActor._turn

    async def crash(actor: SagaActor) -> None:
        if len(crashes) < 9:
            crashes.append(trio.current_time())
            raise ValueError("a bug")
        await turn(actor)

    monkeypatch.setattr(SagaActor, "_turn", crash)
    async with Node(shared, ledger.register) as node:
        handle = await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a")])
        with trio.fail_after(3600):
            outcome = await handle.result()
    assert (outcome.status, len(crashes), ledger.effects) == (COMPLETED, 9, ["a"])


@pytest.mark.parametrize("kind", ["pivot", "compensatable"])
async def test_a_saga_whose_creation_had_no_answer_has_made_no_attempt(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, kind: str
) -> None:
    async with Node(shared, ledger.register) as node:
        node.wire.fault = at_call(0, lose_reply, frozenset({"create_saga"}))
        fields: dict[str, Any] = {
            "tenant_id": "t", "workflow_type": "w", "idempotency_key": "k", "steps": [step("a", kind=kind, retry=ONCE)]
        }  # fmt: skip
        with pytest.raises(StorageUnavailable):
            await node.manager.start_saga(**fields)
        outcome = await (await node.manager.start_saga(**fields)).result()
    assert (outcome.status, ledger.effects) == (COMPLETED, ["a"])
    assert ledger.attempts == [("a", 1)]


async def test_a_cancelled_caller_leaves_a_saga_that_runs(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register) as node:
        with trio.CancelScope() as scope:

            async def cancel_after(_wire: Wire, _verb: str, call: Any) -> Any:
                answer = await call()
                scope.cancel()
                return answer

            node.wire.fault = at_call(0, cancel_after, frozenset({"create_saga"}))
            await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=[step("a", kind="pivot", retry=ONCE)])
        assert scope.cancelled_caught
        await until(lambda: ledger.effects)
    assert ledger.attempts == [("a", 1)]


async def test_a_saga_that_nobody_could_run_for_days_is_run_by_who_can(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    async with Node(shared, ledger.register, works=False) as submitting:
        saga = await submitting.manager.create_saga_workflow(tenant_id="t", workflow_type="w", steps=[step("a")])
    for number in range(1100):
        meta = await shared.saga_meta(saga.saga_id)
        assert meta is not None
        adopted = await shared.adopt_saga(Adoption(saga.saga_id, f"w{number}", meta.epoch, f"entry {number}"))
        await shared.release_saga(saga.saga_id, adopted.meta.epoch, shared.now())
    async with Node(shared, lambda _manager: None):
        await trio.sleep(60)
        async with Node(shared, ledger.register) as able, trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + 3600
            outcome = await able.manager.saga_handle(saga.saga_id).result()
    assert outcome.status is COMPLETED


async def test_an_operators_decision_that_was_stored_is_confirmed_though_its_answer_was_lost(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger
) -> None:
    ledger.failing["a"] = NonRetryableError("no")
    async with Node(shared, ledger.register) as node:
        handle = await _parked(node)
        ledger.failing.clear()
        wire = Wire(shared)
        wire.fault = at_call(0, lose_reply, frozenset({"append"}))
        meta = await shared.saga_meta(handle.saga_id)
        assert meta is not None
        await hand_over(wire, meta, SagaResumed(reason="mended"))
        await until(lambda: "a" in ledger.effects)
    assert ledger.effects == ["pay", "a"]


@pytest.mark.parametrize("reason", [None, 5, "\ud800", "x" * 3000])
async def test_a_reason_that_no_journal_can_carry_is_refused(
    autojump_clock: MockClock, shared: MemoryStorage, ledger: Ledger, reason: Any
) -> None:
    ledger.failing["a"] = NonRetryableError("no")
    async with Node(shared, ledger.register) as node:
        handle = await _parked(node)
        for call in (node.manager.retry_saga, node.manager.cancel_saga):
            with pytest.raises(InvalidInput) as caught:
                await call(handle.saga_id, reason=reason)
            assert caught.value.field == "reason"
        ledger.failing.clear()
        await node.manager.retry_saga(handle.saga_id)
        assert (await handle.result()).status is COMPLETED
