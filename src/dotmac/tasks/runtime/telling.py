"""From facts of a journal to what the metrics hooks are told, once a fact is durable."""

from __future__ import annotations

from ..metrics import emit, wanted
from ..models import OperationStatus
from ..saga.definition import SagaDefinition
from ..saga.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    CompensationBegan,
    Event,
    HandlerMissing,
    RetryScheduled,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
    SagaResumed,
    SagaStarted,
)
from ..storage.records import Adoption

_STATUS_AFTER: dict[type, OperationStatus] = {
    SagaStarted: OperationStatus.IN_PROGRESS,
    CompensationBegan: OperationStatus.COMPENSATING,
    SagaCompleted: OperationStatus.COMPLETED,
    SagaCompensated: OperationStatus.COMPENSATED,
    SagaParked: OperationStatus.FAILED,
}


def tell_event(definition: SagaDefinition, event: Event, seconds: float) -> None:
    """Call the hooks that this fact is for. `seconds` is how long the attempt took, where one ended."""
    match event:
        case AttemptStarted() | AttemptSucceeded() | AttemptFailed() | RetryScheduled():
            _tell_step(definition, event, seconds)
        case HandlerMissing():
            _tell_missing(definition, event)
        case SagaResumed():
            _tell_saga("saga_status_changed", definition, "resumed")
        case _ if type(event) in _STATUS_AFTER:
            _tell_saga("saga_status_changed", definition, _STATUS_AFTER[type(event)])
        case _:
            pass


class _StorageTeller:
    """Calls the hooks for each call of the storage, whichever tenant it was for; false while nobody listens."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return wanted("storage_operation")

    def __call__(self, verb: str, seconds: float, failure: BaseException | None) -> None:
        emit("storage_operation", verb, "", seconds=seconds, error=None if failure is None else repr(failure))


tell_storage = _StorageTeller()
"""Fits `StorageProtocol.observer`."""


def tell_created(definition: SagaDefinition) -> None:
    """Call the hooks for a new saga."""
    _tell_saga("saga_created", definition, OperationStatus.PENDING)


def tell_taken_over(definition: SagaDefinition, adoption: Adoption, epoch: int) -> None:
    """Call the hooks for a saga that this process took over from a worker that was lost."""
    if wanted("saga_taken_over"):
        emit(
            "saga_taken_over",
            definition.workflow_type,
            definition.tenant_id,
            saga_id=definition.saga_id,
            previous=adoption.previous,
            worker=adoption.worker,
            epoch=epoch,
            metadata=definition.metadata,
        )


def _tell_missing(definition: SagaDefinition, event: HandlerMissing) -> None:
    if wanted("saga_handler_missing"):
        step = definition.steps[event.step].name
        details = {"saga_id": definition.saga_id, "step": step, "undo": event.undo}
        emit("saga_handler_missing", event.operation, definition.tenant_id, **details)


def _tell_saga(point: str, definition: SagaDefinition, status: str) -> None:
    if wanted(point):
        emit(
            point,
            definition.workflow_type,
            definition.tenant_id,
            saga_id=definition.saga_id,
            status=str(status),
            metadata=definition.metadata,
        )


def _tell_step(
    definition: SagaDefinition,
    event: AttemptStarted | AttemptSucceeded | AttemptFailed | RetryScheduled,
    seconds: float,
) -> None:
    match event:
        case AttemptStarted():
            point = "saga_step_started"
        case AttemptSucceeded():
            point = "saga_step_compensated" if event.undo else "saga_step_completed"
        case AttemptFailed():
            point = "saga_step_failed"
        case RetryScheduled():
            point = "saga_step_retried"
    if not wanted(point):
        return
    step = definition.steps[event.step]
    details: dict[str, object] = {"saga_id": definition.saga_id, "step": step.name, "undo": event.undo}
    if not isinstance(event, RetryScheduled):
        details["attempt"] = event.attempt
    if isinstance(event, AttemptSucceeded | AttemptFailed):
        details["seconds"] = seconds
    if isinstance(event, AttemptFailed):
        details["error"] = str(event.failure)
    name = step.compensation_operation if event.undo else step.operation
    emit(point, name or "", definition.tenant_id, **details)
