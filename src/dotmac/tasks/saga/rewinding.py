"""Going forward again from a named step: which parked sagas can, and what becomes of their steps.

An effect is never done a second time while the first may stand: what is to run again was undone, never happened, or
comes after the pivot, where nothing is undone and each step bears being run again. And no step is passed over: those
before the named one stand, so whatever refers to their results finds them.
"""

from __future__ import annotations

from msgspec.structs import replace

from ..models import StepKind
from .definition import StepDefinition
from .state import SagaState, StepState, Track, TrackStatus


def why_not_from(state: SagaState, step: int) -> str | None:
    """Why a parked saga cannot go forward again from the step with this index, or None: it can."""
    if not 0 <= step < len(state.steps):
        return f"there is no step {step}"
    for index, (definition, past) in enumerate(zip(state.definition.steps, state.steps, strict=True)):
        why = _why_not_before(past) if index < step else _why_not_again(definition, past)
        if why is not None:
            return f"step '{definition.name}' {why}"
    return None


def rewound(state: SagaState, step: int) -> SagaState:
    """The saga as it goes forward again from this step, without saying whether it may."""
    before = (replace(past, undo=renewed(past.undo)) for past in state.steps[:step])
    return replace(state, steps=(*before, *map(_afresh, state.steps[step:])), cursor=step, undoing=False, reason="")


def renewed(track: Track) -> Track:
    """The track with fresh attempts, if it had none left."""
    if track.status is not TrackStatus.EXHAUSTED:
        return track
    return replace(track, status=TrackStatus.READY, uncounted=track.attempts, losses=())


def _why_not_before(past: StepState) -> str | None:
    if past.forward.status is not TrackStatus.DONE:
        return "comes before, and did not complete"
    if past.undo.status is TrackStatus.DONE:
        return "comes before, and was undone"
    return "comes before, and may have been undone" if past.undo.maybe_done else None


def _why_not_again(definition: StepDefinition, past: StepState) -> str | None:
    if past.undo.status is TrackStatus.EXHAUSTED:
        return "is not undone: its compensation did not succeed"
    done = past.forward.status is TrackStatus.DONE and past.undo.status is not TrackStatus.DONE
    if done and definition.kind is not StepKind.RETRIABLE:
        return "completed and was not undone, so it would be done twice"
    return None


def _afresh(past: StepState) -> StepState:
    undone = past.undo.status is TrackStatus.DONE
    return StepState(
        # Numbers of attempts are never used twice.
        forward=Track(
            attempts=past.forward.attempts,
            uncounted=past.forward.attempts,
            maybe_done=past.happened and not undone,
            failure=None if undone else past.forward.failure,
        ),
        undo=Track(attempts=past.undo.attempts, uncounted=past.undo.attempts),
        times_undone=past.times_undone + undone,
    )
