"""How a saga looks to its users: the fold of its journal as plain dataclasses."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from ..jsonvalue import copy_json, decode
from ..models import OperationStatus, SagaHistoryEntry, SagaOutcome, SagaStep, SagaWorkflow
from .definition import StepDefinition
from .events import Event, SagaCreated, encode_events
from .rewinding import why_not_from
from .state import SagaState, StepState, Track, TrackStatus

_FORWARD = {
    TrackStatus.READY: OperationStatus.PENDING,
    TrackStatus.RUNNING: OperationStatus.IN_PROGRESS,
    TrackStatus.FAILED: OperationStatus.IN_PROGRESS,
    TrackStatus.WAITING: OperationStatus.IN_PROGRESS,
    TrackStatus.DONE: OperationStatus.COMPLETED,
    TrackStatus.EXHAUSTED: OperationStatus.FAILED,
}


def utc(seconds: float) -> datetime:
    """Unix seconds as an aware datetime."""
    return datetime.fromtimestamp(seconds, UTC)


def workflow_view(
    state: SagaState, *, created_at: float, updated_at: float, owner: str | None = None, epoch: int = 0
) -> SagaWorkflow:
    """The saga as its users see it.

    Args:
        state: The fold of its journal.
        created_at: Unix seconds by the storage's clock.
        updated_at: The same, of the newest entry.
        owner: The worker that runs it now.
        epoch: Its ownership counter.
    """
    definition = state.definition
    return SagaWorkflow(
        saga_id=definition.saga_id,
        tenant_id=definition.tenant_id,
        workflow_type=definition.workflow_type,
        steps=[_step_view(*pair, undoing=state.undoing) for pair in zip(definition.steps, state.steps, strict=True)],
        status=state.status,
        current_step=max(state.cursor, 0),
        created_at=utc(created_at),
        updated_at=utc(updated_at),
        timeout_seconds=definition.timeout_seconds,
        idempotency_key=definition.idempotency_key,
        priority=definition.priority,
        error=why_not_completed(state),
        open_items=list(state.open_items),
        retry_from=_retry_from(state),
        waiting_for=waiting_for(state.waits_for),
        owner=owner,
        epoch=epoch,
    )


def _retry_from(state: SagaState) -> list[str]:
    if state.status is not OperationStatus.FAILED:
        return []
    steps = enumerate(state.definition.steps)
    return [definition.name for index, definition in steps if why_not_from(state, index) is None]


def waiting_for(handler: str | None) -> str | None:
    """What a saga waits for, in words; `handler` as in `SagaState.waits_for`."""
    if handler is None:
        return None
    kind, _, name = handler.partition(" ")
    return f"no worker has a handler for {kind} {name!r}"


def outcome_view(state: SagaState) -> SagaOutcome:
    """How the saga ended, for a state with a final status."""
    done, pairs = TrackStatus.DONE, zip(state.definition.steps, state.steps, strict=True)
    stands = [(d.name, s) for d, s in pairs if s.forward.status is done and s.undo.status is not done]
    return SagaOutcome(
        saga_id=state.definition.saga_id,
        status=state.status,
        results={name: result_value(step) for name, step in stands},
        error=why_not_completed(state),
        open_items=state.open_items,
    )


def why_not_completed(state: SagaState) -> str | None:
    """Why the saga turned back or was parked, in one line; None if it did neither."""
    return "; ".join(filter(None, (state.reason, *state.open_items))) or None


def history_entries(
    definition_names: tuple[str, ...], saga_id: str, sequence: int, at: float, events: Iterable[Event]
) -> list[SagaHistoryEntry]:
    """One journal entry as history lines, one per event."""
    return [_history_entry(definition_names, saga_id, sequence, at, event) for event in events]


def result_value(step: StepState) -> Any:
    """A step's result as JSON values of the caller's own, or None."""
    return None if step.result is None else decode(step.result)


def _step_view(definition: StepDefinition, step: StepState, *, undoing: bool) -> SagaStep:
    waiting = step.undo if undoing else step.forward
    return SagaStep(
        name=definition.name,
        operation=definition.operation,
        parameters=copy_json(definition.parameters),
        kind=definition.kind,
        compensation_operation=definition.compensation_operation,
        compensation_parameters=copy_json(definition.compensation_parameters),
        max_retries=definition.retry.max_retries,
        timeout_seconds=definition.timeout_seconds,
        status=_step_status(step),
        attempts=step.forward.attempts,
        retry_count=max(step.forward.spent - 1, 0),
        result=result_value(step),
        error=_text(step.forward),
        compensation_status=_undo_status(definition, step, undoing=undoing),
        compensation_attempts=step.undo.attempts,
        compensation_error=_text(step.undo),
        next_attempt_at=utc(waiting.retry_at) if waiting.status is TrackStatus.WAITING else None,
    )


def _step_status(step: StepState) -> OperationStatus:
    if step.undo.status is TrackStatus.DONE:
        return OperationStatus.COMPENSATED
    if step.forward.status is TrackStatus.EXHAUSTED and step.forward.maybe_done:
        return OperationStatus.UNKNOWN
    return _FORWARD[step.forward.status]


def _undo_status(definition: StepDefinition, step: StepState, *, undoing: bool) -> OperationStatus | None:
    if not undoing or not step.happened or definition.compensation_operation is None:
        return None
    return _FORWARD[step.undo.status]


def _text(track: Track) -> str | None:
    return None if track.failure is None else str(track.failure)


def _history_entry(names: tuple[str, ...], saga_id: str, sequence: int, at: float, event: Event) -> SagaHistoryEntry:
    details: dict[str, Any] = decode(encode_events(event))
    name = details.pop("e")
    undo = details.pop("undo", False)
    if name.startswith(("attempt", "retry")):
        name = f"{'compensation' if undo else 'step'}_{_SHORT[name]}"
    elif undo:
        details["undo"] = True
    if isinstance(event, SagaCreated):
        details = {"workflow_type": event.definition.workflow_type, "steps": list(names)}
    if "from_step" in details:
        details["from_step"] = names[details["from_step"]]
    for moment in _MOMENTS & details.keys():
        details[moment] = None if details[moment] is None else utc(details[moment]).isoformat()
    step = details.pop("step", None)
    return SagaHistoryEntry(
        saga_id=saga_id,
        timestamp=utc(at),
        event=name,
        sequence=sequence,
        step=None if step is None else names[step],
        attempt=details.pop("attempt", None),
        details=details,
    )


_MOMENTS = frozenset({"retry_at", "deadline_at"})  # Unix seconds in the journal, text of RFC 3339 in the history
_SHORT = {
    "attempt_started": "started",
    "attempt_succeeded": "completed",
    "attempt_failed": "failed",
    "retry_scheduled": "retry_scheduled",
    "attempts_exhausted": "exhausted",
}
