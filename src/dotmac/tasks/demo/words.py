"""The history in plain words, and the marks beside them: shared by the live view and the plain lines."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..models import OperationStatus, SagaHistoryEntry, SagaStep, SagaWorkflow

MARKS = {
    OperationStatus.PENDING: ("·", ".", "dim"),
    OperationStatus.IN_PROGRESS: ("▶", ">", "cyan"),
    OperationStatus.COMPLETED: ("✓", "+", "green"),
    OperationStatus.COMPENSATING: ("◀", "<", "yellow"),
    OperationStatus.COMPENSATED: ("↶", "<", "yellow"),
    OperationStatus.FAILED: ("✗", "x", "red"),
    OperationStatus.UNKNOWN: ("?", "?", "magenta"),
}
"""Per status: a mark, one for terminals without Unicode, and a style."""


def fact(entry: SagaHistoryEntry) -> tuple[str, str]:
    """One fact of the history in words, and its style."""
    words, style = _FACTS.get(entry.event, (entry.event.replace("_", " "), ""))
    return words.format(step=entry.step, attempt=entry.attempt, more=_more(entry)), style


def progress(step: SagaStep, now: datetime) -> str:
    """What a step is doing, in a few words."""
    undo = step.compensation_status
    attempts = step.attempts if undo is None else step.compensation_attempts
    waits = ""
    if step.next_attempt_at is not None:
        waits = f", again in {max((step.next_attempt_at - now).total_seconds(), 0):.1f} s"
    tried = f" (attempt {attempts}{waits})" if attempts > 1 or waits else ""
    if undo is not None:
        return f"{_UNDOING[undo]}{tried}"
    return f"{step.status.replace('_', ' ')}{tried}"


def short_id(worker: str | None) -> str:
    """The last part of a worker's id, which is what tells two of them apart."""
    return (worker or "").rpartition(":")[2]


def heading(saga: SagaWorkflow, seconds: float) -> str:
    """One line about the whole saga."""
    owner = f", worker {short_id(saga.owner)}" if saga.owner else ""
    return f"{saga.workflow_type} {saga.status.replace('_', ' ')}, epoch {saga.epoch}{owner}, {seconds:.1f} s"


_UNDOING = {
    OperationStatus.PENDING: "to be undone",
    OperationStatus.IN_PROGRESS: "undoing",
    OperationStatus.COMPLETED: "undone",
    OperationStatus.FAILED: "undo failed",
}

_FACTS = {
    "saga_created": ("stored", "dim"),
    "saga_started": ("started", "dim"),
    "saga_adopted": ("taken over by {more}", "bold magenta"),
    "step_started": ("{step}: attempt {attempt}", "cyan"),
    "step_completed": ("{step}: done", "green"),
    "step_failed": ("{step}: failed, {more}", "red"),
    "step_retry_scheduled": ("{step}: will be tried again", "yellow"),
    "step_exhausted": ("{step}: no further try", "red"),
    "compensation_began": ("turns back", "bold yellow"),
    "compensation_started": ("undo {step}: attempt {attempt}", "yellow"),
    "compensation_completed": ("undo {step}: done", "green"),
    "compensation_failed": ("undo {step}: failed, {more}", "red"),
    "compensation_retry_scheduled": ("undo {step}: will be tried again", "yellow"),
    "saga_completed": ("completed", "bold green"),
    "saga_compensated": ("compensated: everything is undone", "bold yellow"),
    "saga_parked": ("parked", "bold red"),
}


def _more(entry: SagaHistoryEntry) -> str:
    details: dict[str, Any] = entry.details
    if "worker" in details:
        return f"worker {short_id(details['worker'])}, epoch {details['epoch']}"
    failure = details.get("failure", {})
    return str(failure.get("message") or failure.get("error") or "")
