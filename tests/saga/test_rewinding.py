"""From which steps a parked saga goes forward again, and what it remembers then."""

from __future__ import annotations

import pytest

from dotmac.tasks.errors import InternalError
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.saga.events import (
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    CompensationBegan,
    Event,
    SagaCreated,
    SagaParked,
    SagaResumed,
    SagaStarted,
    decode_events,
    encode_events,
)
from dotmac.tasks.saga.machine import apply, fold
from dotmac.tasks.saga.rewinding import why_not_from
from dotmac.tasks.saga.state import SagaState, StepState, Track, TrackStatus
from saga.model import RESULT, Budget, begin, play, saga
from saga.rows import done, lost, over, refused

BEGUN: list[Event] = [CompensationBegan("declined")]
PARKED: list[Event] = [SagaParked(("an item",))]


def begun(kinds: str) -> list[Event]:
    return [SagaCreated(saga(kinds)), SagaStarted(1000.0)]


def kept(step: int) -> list[Event]:
    """A compensation that did not succeed: its effect is not undone."""
    return [*refused(step, undo=True), *over(step, undo=True)]


def perhaps_undone(step: int) -> list[Event]:
    return [*lost(step, undo=True), *over(step, undo=True)]


FIRST_KEPT = [
    *begun("CCCC"), *done(0), *done(1), *done(2), *refused(3), *over(3), *BEGUN,
    *done(2, undo=True), *done(1, undo=True), *kept(0), *PARKED,
]  # fmt: skip
FIRST_PERHAPS_UNDONE = [
    *begun("CC"), *done(0), *refused(1), *over(1), *BEGUN, *perhaps_undone(0), *PARKED,
]  # fmt: skip
MIDDLE_KEPT = [
    *begun("CCC"), *done(0), *done(1), *refused(2), *over(2), *BEGUN, *kept(1), *done(0, undo=True), *PARKED,
]  # fmt: skip
AFTER_PIVOT = [*begun("CPRRR"), *done(0), *done(1), *done(2), *refused(3), *over(3), *PARKED]
AT_PIVOT = [*begun("CP"), *done(0), *lost(1), *over(1), *PARKED]
WITHOUT_UNDO = [
    *begun("CNCC"), *done(0), *done(1), *done(2), *refused(3), *over(3), *BEGUN,
    *done(2, undo=True), *kept(0), *PARKED,
]  # fmt: skip
LOST_BEHIND_KEPT = [*begun("CN"), *done(0), *lost(1), *over(1), *BEGUN, *kept(0), *PARKED]
CANCELLED = [*begun("CC"), *done(0), CancelRequested("wrong"), *BEGUN, *kept(0), *PARKED]


@pytest.mark.parametrize(
    ("journal", "from_where"),
    [
        (FIRST_KEPT, {1}),
        (FIRST_PERHAPS_UNDONE, set()),
        (MIDDLE_KEPT, set()),
        (AFTER_PIVOT, {2, 3}),
        (AT_PIVOT, {1}),
        (WITHOUT_UNDO, {2}),
        (LOST_BEHIND_KEPT, {1}),
        (CANCELLED, {1}),
    ],
)
def test_nothing_is_passed_over_and_nothing_that_stands_is_done_again(
    journal: list[Event], from_where: set[int]
) -> None:
    state = fold(journal)
    assert {step for step in range(len(state.steps)) if why_not_from(state, step) is None} == from_where
    for step in range(len(state.steps)):
        if step in from_where:
            assert apply(state, SagaResumed(from_step=step)).status is OperationStatus.IN_PROGRESS
        else:
            with pytest.raises(InternalError, match="cannot follow"):
                apply(state, SagaResumed(from_step=step))


@pytest.mark.parametrize(
    ("journal", "step", "why"),
    [
        (FIRST_KEPT, 0, "step 'c0' is not undone: its compensation did not succeed"),
        (FIRST_KEPT, 2, "step 'c1' comes before, and was undone"),
        (FIRST_PERHAPS_UNDONE, 1, "step 'c0' comes before, and may have been undone"),
        (AFTER_PIVOT, 1, "step 'p1' completed and was not undone, so it would be done twice"),
        (AFTER_PIVOT, 4, "step 'r3' comes before, and did not complete"),
        (AT_PIVOT, 0, "step 'c0' completed and was not undone, so it would be done twice"),
        (WITHOUT_UNDO, 1, "step 'n1' completed and was not undone, so it would be done twice"),
        (AT_PIVOT, -1, "there is no step -1"),
        (AT_PIVOT, 2, "there is no step 2"),
    ],
)
def test_a_refusal_says_why(journal: list[Event], step: int, why: str) -> None:
    assert why_not_from(fold(journal), step) == why


def test_only_a_parked_saga_goes_forward_again() -> None:
    for length in range(1, len(FIRST_KEPT)):
        with pytest.raises(InternalError, match="cannot follow in status"):
            apply(fold(FIRST_KEPT[:length]), SagaResumed(from_step=1))


def test_a_saga_does_not_go_both_ways() -> None:
    with pytest.raises(InternalError, match="turn back as well"):
        apply(fold(AT_PIVOT), SagaResumed(undo=True, from_step=1))


def test_what_was_undone_is_another_effect_when_it_is_done_again() -> None:
    state = fold([*FIRST_KEPT, SagaResumed(from_step=1)])
    assert [step.times_undone for step in state.steps] == [0, 1, 1, 0]
    # Attempts go on counting, and those before are not held against the policy.
    assert state.steps[1] == StepState(Track(attempts=1, uncounted=1), Track(attempts=1, uncounted=1), times_undone=1)
    assert state.steps[3].forward.failure is not None
    assert state.steps[3].forward.spent == 0


def test_what_stands_keeps_its_result_and_can_be_undone_later() -> None:
    state = fold([*FIRST_KEPT, SagaResumed(from_step=1)])
    assert state.steps[0].forward.status is TrackStatus.DONE
    assert state.steps[0].result is not None
    assert (state.steps[0].undo.status, state.steps[0].undo.spent) == (TrackStatus.READY, 0)
    again = fold([*FIRST_KEPT, SagaResumed(from_step=1), *done(1, 2), *refused(2, 2), *over(2), *BEGUN])
    assert again.cursor == 1
    for event in done(1, 2, undo=True):
        again = apply(again, event)
    assert again.cursor == 0


def test_a_step_after_the_pivot_that_runs_again_may_be_done_already() -> None:
    state = fold([*AFTER_PIVOT, SagaResumed(from_step=2)])
    assert state.committed
    assert state.steps[2].forward.maybe_done
    assert (state.steps[2].result, state.steps[2].times_undone) == (None, 0)
    replaced = apply(apply(state, AttemptStarted(2, 2)), AttemptSucceeded(2, 2, result=RESULT))
    assert (replaced.steps[2].result, replaced.cursor) == (RESULT, 3)


def test_the_saga_forgets_why_it_turned_back() -> None:
    state = fold([*CANCELLED, SagaResumed(from_step=1)])
    assert (state.cancel, state.reason, state.undoing, state.open_items) == (None, "", False, ())
    assert (state.deadline_at, state.timed_out, state.cursor) == (None, False, 1)


def test_a_saga_that_goes_forward_again_completes() -> None:
    script = ("forward succeeds", "forward refused", "undo refused", "resumed from an earlier step")
    node = play(begin(saga("CC"), Budget(resumes=1)), *script)
    assert node.live.status is OperationStatus.COMPLETED
    assert all(node.world.stands)


def test_journals_without_the_field_are_read_as_before() -> None:
    stored = b'[{"e":"saga_resumed","reason":"mended"}]'
    assert decode_events(stored) == [SagaResumed(reason="mended")]
    assert encode_events([SagaResumed(reason="mended")]) == stored


def test_a_result_does_not_make_a_step_forget_that_it_was_undone() -> None:
    state: SagaState = fold([*FIRST_KEPT, SagaResumed(from_step=1), *done(1, 2)])
    assert state.steps[1].times_undone == 1
