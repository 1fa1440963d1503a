"""The saga's rules: `apply` folds a fact into the state, `decide` says what to do next. Nothing else decides.

Live execution, restart and takeover all go through the same two functions, so there is one recovery path.
The driver's loop is: decide; a `Record` is applied at once and kept; before anything with an effect (`Invoke`,
`Wait`, `Rest`) everything kept is appended to the journal in one go. `decide` meets a running attempt only
before its handler was invoked by this very owner: the outcome of an invocation is applied before deciding
again, and an adoption turns an attempt that it finds running into one cut off.

Transitions (F: going forward, U: undoing; "turning back" = cancelled or out of time, and no pivot completed):

    status       at the cursor                          decide
    -----------  -------------------------------------  -----------------------------------------------------
    pending      cancelled                              CompensationBegan (nothing to undo)
                 otherwise                              SagaStarted
    in_progress  past the last step, cancelled, and
                 no pivot completed                     CompensationBegan
                 past the last step                     SagaCompleted
                 time is over, no pivot completed       DeadlinePassed
      F ready    turning back                           CompensationBegan (unknown pivot: AttemptsExhausted)
                 otherwise                              AttemptStarted
      F running  turning back                           AttemptFailed (Revoked: the handler was not invoked)
                 otherwise                              Invoke
      F failed   turning back                           AttemptsExhausted
                 interrupted, first loss of a worker    AttemptStarted
                 interrupted, more losses, in bounds    RetryScheduled (spreads what was lost together)
                 interrupted otherwise                  AttemptStarted
                 may retry                              RetryScheduled
                 otherwise                              AttemptsExhausted
      F waiting  turning back                           AttemptsExhausted
                 due                                    AttemptStarted
                 otherwise                              Wait
      F exhausted  after a pivot, or an unknown pivot   SagaParked
                 too many losses, not turning back      SagaParked
                 otherwise                              CompensationBegan
    compensating before the first step                  SagaCompensated, or SagaParked with the open items
      U ready                                           AttemptStarted
      U running                                         Invoke
      U failed   as F failed                            the same (apply moves on to the step before)
      U waiting  due / otherwise                        AttemptStarted / Wait
    completed, compensated, failed                      Rest

An interrupted attempt (`Failure.interrupted`) uses up no retry. Only losses of workers are bounded, by a bound of
their own: a handler that ends its process would otherwise end every worker, one after the other.
"""

from __future__ import annotations

from ..models import OperationStatus, StepKind
from ..retry import RetryPolicy
from .commands import Command, Invoke, Record, Rest, Wait
from .events import (
    AttemptFailed,
    AttemptsExhausted,
    AttemptStarted,
    CompensationBegan,
    DeadlinePassed,
    Failure,
    RetryScheduled,
    SagaCompensated,
    SagaCompleted,
    SagaParked,
    SagaStarted,
)
from .fold import apply, fold
from .state import SagaState, Track, TrackStatus

__all__ = ["MAX_WORKER_LOSSES", "apply", "decide", "fold", "interruptible", "why_not_cancelled"]

MAX_WORKER_LOSSES = 5
"""Losses of a worker in a row after which a step is given up, unless the settings say otherwise."""

_AFTER_LOSSES = RetryPolicy(initial_delay=1.0, multiplier=4.0, max_delay=60.0)
_IN_PROGRESS = OperationStatus.IN_PROGRESS
_REVOKED = Failure("Revoked", "the saga turned back before the handler was invoked", interrupted=True)


def decide(state: SagaState, now: float, chance: float, max_losses: int = MAX_WORKER_LOSSES) -> Command:
    """What to do next.

    Args:
        state: The fold of the journal so far.
        now: The storage's time, in Unix seconds.
        chance: A random number in [0, 1), for the jitter of a back-off.
        max_losses: Losses of a worker in a row after which a step is given up.
    """
    status = state.status
    if status is _IN_PROGRESS:
        return _forward(state, now, chance, max_losses)
    if status is OperationStatus.COMPENSATING:
        return _backward(state, now, chance, max_losses)
    if status is OperationStatus.PENDING:
        return Record(_begin(state, now))
    return Rest()


def interruptible(state: SagaState, *, invoked: bool = True) -> bool:
    """Whether a cancel request should cut the running attempt off.

    A pivot is left to finish: cutting it off would leave an outcome that nobody can know, at the one point
    where that cannot be mended. Undoing, and going forward after a pivot, are never cut off.

    Args:
        state: The fold of the journal so far.
        invoked: Whether the handler was called; it may still wait for its lock, and then nothing has happened.
    """
    return (
        state.status is OperationStatus.IN_PROGRESS
        and not state.committed
        and state.cursor < len(state.steps)
        and not (invoked and state.current_definition.kind is StepKind.PIVOT)
    )


def why_not_cancelled(state: SagaState) -> str | None:
    """Why a cancel request that was stored before this state may have no effect; None: the saga turns back.

    Sound for every later state too: an owner sees the request with its next append, before the next effect.

    Args:
        state: The fold of a journal that was read after the request was stored.
    """
    if state.undoing:
        return f"it is {state.status}" if state.status.is_final and state.cancel is None else None
    if state.status is OperationStatus.FAILED:
        return f"it is parked ({'; '.join(state.open_items)})"
    if state.status.is_final:
        return f"it is {state.status}"
    if state.committed:
        return "its pivot has completed, so it goes forward"
    if state.past_last_step or state.current_definition.kind is not StepKind.PIVOT:
        return None
    name = state.current_definition.name
    if state.track.status is TrackStatus.RUNNING:
        return f"its pivot '{name}' is running; it turns back only if that attempt fails, which is then the last one"
    if state.at_unknown_pivot:
        return f"its pivot '{name}' may have happened; no further attempt is made, and the saga is parked"
    return None


def _begin(state: SagaState, now: float) -> SagaStarted | CompensationBegan:
    if state.cancel is not None:
        return CompensationBegan(reason=_why(state))
    timeout = state.definition.timeout_seconds
    return SagaStarted(deadline_at=None if timeout is None else now + timeout)


def _forward(state: SagaState, now: float, chance: float, max_losses: int) -> Command:
    if state.cursor == len(state.steps):
        return Record(CompensationBegan(reason=_why(state)) if state.may_turn_back else SagaCompleted())
    expires = None if state.committed else state.deadline_at
    if expires is not None and now >= expires and not state.timed_out:
        return Record(DeadlinePassed())
    track = state.steps[state.cursor].forward
    if track.status is TrackStatus.EXHAUSTED:
        return Record(_give_up(state))
    if (state.cancel is not None or state.timed_out) and state.turning_back:
        return _turn_back(state)
    if track.status is TrackStatus.FAILED:
        return Record(_after_failure(state, track, now, chance, max_losses))
    return _attempt(state, track, now, expires)


def _turn_back(state: SagaState) -> Command:
    match state.track.status:
        case TrackStatus.READY if not state.at_unknown_pivot:
            return Record(CompensationBegan(reason=_why(state)))
        case TrackStatus.RUNNING:
            return Record(AttemptFailed(state.cursor, state.track.attempts, _REVOKED))
        case _:
            return Record(AttemptsExhausted(state.cursor))


def _backward(state: SagaState, now: float, chance: float, max_losses: int) -> Command:
    if state.cursor >= 0:
        track = state.track
        if track.status is TrackStatus.FAILED:
            return Record(_after_failure(state, track, now, chance, max_losses))
        return _attempt(state, track, now, None)
    items = tuple(
        f"compensation of step '{definition.name}' did not succeed: {_last_words(step.undo)}"
        for definition, step in zip(state.definition.steps, state.steps, strict=True)
        if step.undo.status is TrackStatus.EXHAUSTED
    )
    return Record(SagaParked(items) if items else SagaCompensated())


def _attempt(state: SagaState, track: Track, now: float, expires: float | None) -> Command:
    """The life of one series of attempts, but for what follows a failure; the same in both directions."""
    undo, cursor, status = state.undoing, state.cursor, track.status
    if status is TrackStatus.RUNNING:
        return Invoke(cursor, track.attempts, undo, expires)
    if status is TrackStatus.WAITING and now < track.retry_at:
        return Wait(track.retry_at if expires is None else min(track.retry_at, expires))
    return Record(AttemptStarted(cursor, track.attempts + 1, undo))


def _after_failure(
    state: SagaState, track: Track, now: float, chance: float, max_losses: int
) -> AttemptStarted | RetryScheduled | AttemptsExhausted:
    """What follows a failed attempt, the same in both directions."""
    undo, cursor, failure = state.undoing, state.cursor, track.failure
    policy = state.current_definition.compensation_retry if undo else state.current_definition.retry
    losses = len(track.losses)
    if failure is None or failure.final or losses >= max_losses:
        return AttemptsExhausted(cursor, undo)
    if failure.interrupted:
        if losses > 1:
            return RetryScheduled(cursor, now + _AFTER_LOSSES.delay(losses - 1, chance), undo)
        return AttemptStarted(cursor, track.attempts + 1, undo)
    if not policy.allows(track.spent):
        return AttemptsExhausted(cursor, undo)
    return RetryScheduled(cursor, now + policy.delay(track.spent, chance), undo)


def _give_up(state: SagaState) -> SagaParked | CompensationBegan:
    name, failure = state.current_definition.name, _last_words(state.track)
    if state.committed:
        return SagaParked((f"step '{name}' after the point of no return did not succeed: {failure}",))
    if state.at_unknown_pivot:
        return SagaParked((f"outcome of the pivot step '{name}' is unknown (last attempt: {failure})",))
    if state.poisoned:
        return SagaParked((f"step '{name}' was given up: {failure}",))
    return CompensationBegan(reason=_why(state))


def _last_words(track: Track) -> str:
    """How the last attempt of a track ended; the workers too, where it lost several in a row."""
    if len(track.losses) < 2:  # noqa: PLR2004 - several
        return str(track.failure)
    return f"{len(track.losses)} workers in a row were lost while it ran ({', '.join(track.losses)})"


def _why(state: SagaState) -> str:
    if state.cancel is not None:
        return f"cancelled: {state.cancel.reason}" if state.cancel.reason else "cancelled"
    if state.timed_out:
        return f"out of time: not completed within {state.definition.timeout_seconds} s"
    return f"step '{state.current_definition.name}' failed: {state.track.failure}"
