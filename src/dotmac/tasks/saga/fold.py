"""`apply`: fold one fact into the state. Total over legal journals, loud about illegal ones.

An event that cannot follow the state it meets means a damaged journal or a bug in the driver; going on would
invent an outcome, so it raises `InternalError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from msgspec.structs import replace

from ..errors import InternalError
from ..models import OperationStatus, StepKind
from .events import (
    AttemptFailed,
    AttemptsExhausted,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    CompensationBegan,
    DeadlinePassed,
    Event,
    Failure,
    HandlerMissing,
    RetryScheduled,
    SagaAdopted,
    SagaCompensated,
    SagaCompleted,
    SagaCreated,
    SagaParked,
    SagaResumed,
    SagaStarted,
)
from .rewinding import renewed, rewound, why_not_from
from .state import SagaState, StepState, Track, TrackStatus, handler_name

_IN_PROGRESS, _COMPENSATING = OperationStatus.IN_PROGRESS, OperationStatus.COMPENSATING
_RUNNING = TrackStatus.RUNNING
_STARTABLE = (TrackStatus.READY, TrackStatus.WAITING)


def fold(events: Iterable[Event], state: SagaState | None = None) -> SagaState:
    """The state after these events, which follow `state`; without one, the first of them must be `SagaCreated`.

    Raises:
        InternalError: The journal is empty, or an event cannot follow the ones before it.
    """
    for event in events:
        state = apply(state, event)
        if type(state.steps) is tuple:
            # Changed in place until the end of the fold, so that it takes time in proportion to the events only.
            state = replace(state, steps=cast("tuple[StepState, ...]", list(state.steps)))
    if state is None:
        raise InternalError("a journal cannot be empty")
    return replace(state, steps=tuple(state.steps))


def apply(state: SagaState | None, event: Event) -> SagaState:
    """The state after `event`; None is the state before `SagaCreated`.

    Raises:
        InternalError: The event cannot follow this state.
    """
    if state is None:
        if not isinstance(event, SagaCreated):
            raise InternalError(f"a journal begins with saga_created, not {type(event).__name__}")
        return SagaState(event.definition, (StepState(),) * len(event.definition.steps))
    return _FOLDS[type(event)](state, event)


def _need(state: SagaState, event: Event, *statuses: OperationStatus) -> None:
    if state.status not in statuses:
        raise InternalError(f"{type(event).__name__} cannot follow in status {state.status}")


def _created(_state: SagaState, _event: SagaCreated) -> SagaState:
    raise InternalError("SagaCreated cannot follow another event")


def _started(state: SagaState, event: SagaStarted) -> SagaState:
    _need(state, event, OperationStatus.PENDING)
    return replace(state, status=OperationStatus.IN_PROGRESS, deadline_at=event.deadline_at)


def _adopted(state: SagaState, event: SagaAdopted) -> SagaState:
    # Epochs only rise. A saga created without an owner had epoch 0, so its first adoption may bring epoch 1.
    if event.epoch < state.epoch or (event.epoch == state.epoch and state.worker is not None):
        raise InternalError(f"an adoption with epoch {event.epoch} cannot follow epoch {state.epoch}")
    lost_from, state = state.worker, replace(state, epoch=event.epoch, worker=event.worker)
    if state.status.is_final or not 0 <= state.cursor < len(state.steps):
        return state
    if state.track.status is not TrackStatus.RUNNING:
        return state
    worker = event.previous or lost_from or "of unknown name"
    lost = Failure("WorkerLost", f"worker {worker} was lost while the attempt ran", unknown=True, interrupted=True)
    return _with_track(state, _failed_track(state.track, lost, (*state.track.losses, worker)))


def _attempt_started(state: SagaState, event: AttemptStarted) -> SagaState:
    track = _track_of(state, event)
    if not _startable(track) or event.attempt != track.attempts + 1:
        raise InternalError(f"attempt {event.attempt} of step {event.step} cannot start: {track.status}")
    if state.waits_for is not None:
        state = replace(state, waits_for=None)
    return _with_track(state, replace(track, status=_RUNNING, attempts=event.attempt))


def _startable(track: Track) -> bool:
    return track.status in _STARTABLE or (track.status is TrackStatus.FAILED and track.interrupted)


def _handler_missing(state: SagaState, event: HandlerMissing) -> SagaState:
    track = _track_of(state, event)
    if not _startable(track):
        raise InternalError(f"no handler can be missing for step {event.step}: {track.status}")
    return replace(state, waits_for=handler_name(event.operation, undo=event.undo))


def _attempt_succeeded(state: SagaState, event: AttemptSucceeded) -> SagaState:
    track = replace(_running(state, event), status=TrackStatus.DONE, failure=None, losses=())
    if event.undo:
        return _step_down(_with_track(state, track))
    cursor, steps = state.cursor, state.steps
    step = replace(steps[cursor], forward=track, result=event.result)
    return replace(
        state,
        steps=_with_step(steps, cursor, step),
        committed=state.committed or state.definition.steps[cursor].kind is StepKind.PIVOT,
        cursor=cursor + 1,
    )


def _attempt_failed(state: SagaState, event: AttemptFailed) -> SagaState:
    track = _running(state, event)
    return _with_track(state, _failed_track(track, event.failure, track.losses if event.failure.interrupted else ()))


def _retry_scheduled(state: SagaState, event: RetryScheduled) -> SagaState:
    track = _track_of(state, event)
    if track.status is not TrackStatus.FAILED:
        raise InternalError(f"no retry of step {event.step} can be scheduled: {track.status}")
    return _with_track(state, replace(track, status=TrackStatus.WAITING, retry_at=event.retry_at))


def _attempts_exhausted(state: SagaState, event: AttemptsExhausted) -> SagaState:
    track = _track_of(state, event)
    # A retry that is due, or a pivot made ready by an operator, is given up only because the saga turns back.
    revocable = track.status is TrackStatus.WAITING or (track.status is TrackStatus.READY and state.at_unknown_pivot)
    if track.status is not TrackStatus.FAILED and not (revocable and state.turning_back):
        raise InternalError(f"attempts of step {event.step} cannot be exhausted: {track.status}")
    state = _with_track(state, replace(track, status=TrackStatus.EXHAUSTED))
    return _step_down(state) if event.undo else state


def _cancel_requested(state: SagaState, event: CancelRequested) -> SagaState:
    return state if state.cancel is not None else replace(state, cancel=event)


def _deadline_passed(state: SagaState, event: DeadlinePassed) -> SagaState:
    _need(state, event, OperationStatus.IN_PROGRESS)
    if state.committed or state.timed_out or state.deadline_at is None or state.past_last_step:
        raise InternalError("DeadlinePassed cannot follow: the forward part has no deadline that is still to pass")
    return replace(state, timed_out=True)


def _compensation_began(state: SagaState, event: CompensationBegan) -> SagaState:
    _need(state, event, OperationStatus.PENDING, OperationStatus.IN_PROGRESS)
    if not state.may_turn_back:
        raise InternalError(f"CompensationBegan cannot follow: {_standing(state)}")
    return _turn_back(state, event.reason)


def _completed(state: SagaState, event: SagaCompleted) -> SagaState:
    _need(state, event, OperationStatus.IN_PROGRESS)
    if not state.past_last_step or state.may_turn_back:  # a cancelled saga turns back even from its end
        raise InternalError(f"SagaCompleted cannot follow: {_standing(state)}")
    return replace(state, status=OperationStatus.COMPLETED)


def _compensated(state: SagaState, event: SagaCompensated) -> SagaState:
    _need(state, event, OperationStatus.COMPENSATING)
    if state.cursor >= 0 or state.undo_failed:
        raise InternalError(f"SagaCompensated cannot follow: {_standing(state)}")
    return replace(state, status=OperationStatus.COMPENSATED)


def _parked(state: SagaState, event: SagaParked) -> SagaState:
    _need(state, event, OperationStatus.IN_PROGRESS, OperationStatus.COMPENSATING)
    if not event.open_items or not state.is_stuck:
        raise InternalError(f"SagaParked cannot follow: {_standing(state)}")
    return replace(state, status=OperationStatus.FAILED, open_items=event.open_items, waits_for=None)


def _resumed(state: SagaState, event: SagaResumed) -> SagaState:
    _need(state, event, OperationStatus.FAILED)
    state = replace(state, open_items=())
    if event.from_step is not None:
        why = "it cannot turn back as well" if event.undo else why_not_from(state, event.from_step)
        if why is not None:
            raise InternalError(f"SagaResumed from step {event.from_step} cannot follow: {why}")
        return _going_forward(rewound(state, event.from_step))
    if state.undoing:
        steps = tuple(replace(step, undo=renewed(step.undo)) for step in state.steps)
        cursor = _next_to_undo(state, steps, len(steps))
        return replace(state, steps=steps, status=OperationStatus.COMPENSATING, cursor=cursor)
    if event.undo:
        if state.committed:
            raise InternalError("a saga parked after its pivot cannot be resumed backwards")
        why = (
            "an operator vouched that the pivot did not happen" if state.at_unknown_pivot else "an operator decided so"
        )
        return _turn_back(state, event.reason or why)
    return _with_track(_going_forward(state), renewed(state.track))


def _going_forward(state: SagaState) -> SagaState:
    # The operator overrules what made the saga stop: an old cancel or deadline would stop it again at once.
    return replace(state, cancel=None, timed_out=False, deadline_at=None, status=OperationStatus.IN_PROGRESS)


def _track_of(state: SagaState, event: AttemptStarted | AttemptSucceeded | AttemptFailed | Any) -> Track:
    # The events of nearly every append come through here, hence without a call and with each name looked up once.
    undo, cursor, steps = event.undo, state.cursor, state.steps
    if state.status is not (_COMPENSATING if undo else _IN_PROGRESS):
        _need(state, event, _COMPENSATING if undo else _IN_PROGRESS)
    if event.step != cursor or not 0 <= cursor < len(steps):
        raise InternalError(f"{type(event).__name__} is about step {event.step}, but the cursor is at {cursor}")
    return steps[cursor].undo if undo else steps[cursor].forward


def _running(state: SagaState, event: AttemptSucceeded | AttemptFailed) -> Track:
    track = _track_of(state, event)
    if track.status is not _RUNNING or event.attempt != track.attempts:
        raise InternalError(f"attempt {event.attempt} of step {event.step} is not running")
    return track


def _standing(state: SagaState) -> str:
    """Where the saga stands, for the message of an error."""
    if not 0 <= state.cursor < len(state.steps):
        return f"{state.status}, no step at the cursor"
    return f"{state.status}, step {state.cursor} is {state.track.status}"


def _failed_track(track: Track, failure: Failure, losses: tuple[str, ...]) -> Track:
    return replace(
        track,
        status=TrackStatus.FAILED,
        failure=failure,
        maybe_done=track.maybe_done or failure.unknown,
        uncounted=track.uncounted + failure.interrupted,
        losses=losses,
    )


def _with_track(state: SagaState, track: Track) -> SagaState:
    cursor, steps = state.cursor, state.steps
    step = replace(steps[cursor], undo=track) if state.undoing else replace(steps[cursor], forward=track)
    return replace(state, steps=_with_step(steps, cursor, step))


def _with_step(steps: tuple[StepState, ...], at: int, step: StepState) -> tuple[StepState, ...]:
    if type(steps) is not tuple:  # of a fold that has not ended
        cast("list[StepState]", steps)[at] = step
        return steps
    return (*steps[:at], step, *steps[at + 1 :])


def _turn_back(state: SagaState, reason: str) -> SagaState:
    # A step that is ahead of the cursor never began, so the search may start right above the cursor.
    top = min(state.cursor + 1, len(state.steps))
    return replace(
        state,
        status=OperationStatus.COMPENSATING,
        undoing=True,
        reason=reason,
        waits_for=None,
        cursor=_next_to_undo(state, state.steps, top),
    )


def _step_down(state: SagaState) -> SagaState:
    return replace(state, cursor=_next_to_undo(state, state.steps, state.cursor))


def _next_to_undo(state: SagaState, steps: tuple[StepState, ...], below: int) -> int:
    """Index of the highest step under `below` that has something to undo, or -1."""
    for index in range(below - 1, -1, -1):
        step = steps[index]
        has_undo = state.definition.steps[index].compensation_operation is not None
        if has_undo and step.happened and step.undo.status is not TrackStatus.DONE:
            return index
    return -1


_FOLDS: dict[type, Callable[[SagaState, Any], SagaState]] = {
    SagaCreated: _created,
    SagaStarted: _started,
    SagaAdopted: _adopted,
    AttemptStarted: _attempt_started,
    AttemptSucceeded: _attempt_succeeded,
    AttemptFailed: _attempt_failed,
    RetryScheduled: _retry_scheduled,
    AttemptsExhausted: _attempts_exhausted,
    HandlerMissing: _handler_missing,
    CancelRequested: _cancel_requested,
    DeadlinePassed: _deadline_passed,
    CompensationBegan: _compensation_began,
    SagaCompleted: _completed,
    SagaCompensated: _compensated,
    SagaParked: _parked,
    SagaResumed: _resumed,
}
