"""`apply` takes what can follow, refuses everything else, and never invents an outcome."""

from __future__ import annotations

from typing import get_args

import pytest

from dotmac.tasks.errors import InternalError
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.saga.events import (
    AttemptFailed,
    AttemptsExhausted,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    CompensationBegan,
    Event,
    Failure,
    HandlerMissing,
    SagaAdopted,
    SagaCreated,
    SagaParked,
    SagaResumed,
    SagaStarted,
)
from dotmac.tasks.saga.machine import apply, fold
from dotmac.tasks.saga.state import SagaState, TrackStatus
from saga.model import DRAINED, REFUSED, TIMED_OUT, saga
from saga.rows import (
    AT_PIVOT,
    COMMITTED,
    KEPT,
    LOST_PIVOT,
    PARKED,
    POISONED,
    READY,
    ROWS,
    TURNED,
    Row,
    bereft,
    candidates,
    lost,
    over,
    retry,
    tried,
)


def test_every_event_has_a_candidate() -> None:
    types = {type(event) for event in candidates(0, 0, 1, undo=False)}
    assert types == set(get_args(Event))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_may_follow_is_folded_and_everything_else_is_refused(row: Row) -> None:
    state = fold(row.journal)
    inside = 0 <= state.cursor < len(state.steps)
    attempts = state.track.attempts if inside else 1
    for event in candidates(state.cursor, attempts, state.epoch, undo=state.undoing):
        if type(event) in row.legal:
            assert isinstance(apply(state, event), SagaState)
        else:
            with pytest.raises(InternalError):
                apply(state, event)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_attempt_event_of_the_other_direction_is_refused(row: Row) -> None:
    state = fold(row.journal)
    for step in range(-1, len(state.steps) + 1):
        for event in candidates(step, 1, state.epoch, undo=not state.undoing):
            if hasattr(event, "step"):
                with pytest.raises(InternalError):
                    apply(state, event)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_attempt_event_about_another_step_is_refused(row: Row) -> None:
    state = fold(row.journal)
    for step in {-1, *range(len(state.steps) + 1)} - {state.cursor}:
        for event in candidates(step, 1, state.epoch, undo=state.undoing):
            if hasattr(event, "step"):
                with pytest.raises(InternalError):
                    apply(state, event)


@pytest.mark.parametrize("attempt", [0, 1, 3])
def test_an_attempt_must_bear_the_next_number(attempt: int) -> None:
    waiting = fold([*READY, *lost(0), *retry(0)])
    with pytest.raises(InternalError):
        apply(waiting, AttemptStarted(0, attempt))


@pytest.mark.parametrize("attempt", [0, 2])
def test_an_outcome_of_an_attempt_that_does_not_run_is_refused(attempt: int) -> None:
    with pytest.raises(InternalError, match="not running"):
        apply(fold([*READY, *tried(0, 1)]), AttemptSucceeded(0, attempt))


def test_an_empty_journal_is_no_saga() -> None:
    with pytest.raises(InternalError, match="empty"):
        fold([])


def test_a_journal_begins_with_its_creation() -> None:
    with pytest.raises(InternalError, match="begins with saga_created"):
        fold([SagaStarted()])


@pytest.mark.parametrize("epoch", [0, 1, 6, 7])
def test_an_adoption_under_an_epoch_that_does_not_rise_is_refused(epoch: int) -> None:
    state = fold([*READY, SagaAdopted("w2", 7)])
    with pytest.raises(InternalError, match="epoch"):
        apply(state, SagaAdopted("w3", epoch))


def test_the_first_adoption_of_a_saga_created_without_an_owner_brings_epoch_one() -> None:
    assert fold([*READY, SagaAdopted("w1", 1)]).worker == "w1"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_adoption_changes_the_owner_and_cuts_off_at_most_the_running_attempt(row: Row) -> None:
    before = fold(row.journal)
    after = apply(before, SagaAdopted("w9", 9, "w1"))
    assert (after.worker, after.epoch, after.status, after.cursor) == ("w9", 9, before.status, before.cursor)
    if 0 <= before.cursor < len(before.steps) and before.track.status is TrackStatus.RUNNING:
        assert after.track.status is TrackStatus.FAILED
        assert after.track.maybe_done
        assert after.track.failure is not None
        assert after.track.failure.error == "WorkerLost"
    else:
        assert after.steps == before.steps


def test_a_saga_is_not_parked_without_naming_what_is_open() -> None:
    with pytest.raises(InternalError, match="SagaParked"):
        apply(fold(KEPT), SagaParked(()))


def test_a_compensation_is_never_exhausted_without_an_attempt() -> None:
    with pytest.raises(InternalError):
        apply(fold(TURNED), AttemptsExhausted(0, undo=True))


def test_the_first_cancel_request_counts() -> None:
    row = next(row for row in ROWS if row.name == "ready, cancelled")
    again = next(event for event in candidates(0, 0, 1, undo=False) if type(event).__name__ == "CancelRequested")
    state = apply(fold(row.journal), again)
    assert state.cancel is not None
    assert state.cancel.reason == "operator"


def test_a_saga_without_steps_has_nothing_at_the_cursor() -> None:
    state = fold([SagaCreated(saga("")), SagaStarted(1000.0), SagaAdopted("w2", 2)])
    assert state.past_last_step


def test_only_a_saga_parked_before_its_pivot_completed_is_resumed_backwards() -> None:
    after_pivot = fold(next(row for row in ROWS if row.name == "parked after the pivot").journal)
    with pytest.raises(InternalError, match="after its pivot"):
        apply(after_pivot, SagaResumed(undo=True))
    turned = apply(fold([*LOST_PIVOT, *PARKED]), SagaResumed(undo=True))
    assert turned.status is OperationStatus.COMPENSATING
    assert turned.cursor == 0
    assert "vouched" in turned.reason
    turned = apply(fold([*POISONED, *PARKED]), SagaResumed(undo=True))
    assert (turned.status, turned.cursor) == (OperationStatus.COMPENSATING, 0)
    assert turned.reason == "an operator decided so"


def test_a_resumed_saga_forgets_the_cancel_and_the_deadline_that_stopped_it() -> None:
    resumed = fold([*next(row for row in ROWS if row.name == "parked at the pivot").journal, SagaResumed()])
    assert (resumed.cancel, resumed.timed_out, resumed.deadline_at, resumed.open_items) == (None, False, None, ())
    assert resumed.track.spent == 0
    assert resumed.track.attempts == 1


def test_a_resumed_step_may_lose_as_many_workers_again() -> None:
    resumed = fold([*POISONED, *PARKED, SagaResumed()])
    assert (resumed.track.losses, resumed.track.spent, resumed.track.attempts) == ((), 0, 5)


@pytest.mark.parametrize("ending", [REFUSED, TIMED_OUT, DRAINED])
def test_an_ending_of_the_handler_ends_a_row_of_losses_and_a_stop_does_not(ending: Failure) -> None:
    state = fold([*READY, *bereft(0, 2, 3), *retry(0), *tried(0, 3), AttemptFailed(0, 3, ending)])
    assert state.track.losses == (("w1", "w2") if ending.interrupted else ())


@pytest.mark.parametrize(
    ("created_by", "previous", "named"), [("w7", "w1", "w1"), ("w7", None, "w7"), (None, None, "of unknown name")]
)
def test_a_lost_worker_is_named_as_well_as_it_is_known(
    created_by: str | None, previous: str | None, named: str
) -> None:
    adopted = [] if created_by is None else [SagaAdopted(created_by, 7)]
    state = fold([*READY, *adopted, *tried(0, 1), SagaAdopted("w9", 9, previous)])
    assert str(state.track.failure) == f"WorkerLost: worker {named} was lost while the attempt ran"


def test_a_saga_waits_for_a_missing_handler_until_an_attempt_starts() -> None:
    waiting = fold([*READY, HandlerMissing(0, "do"), SagaAdopted("w2", 2)])
    assert waiting.waits_for == "operation do"
    assert apply(waiting, AttemptStarted(0, 1)).waits_for is None
    undoing = fold([*TURNED, HandlerMissing(0, "undo", undo=True)])
    assert undoing.waits_for == "compensation undo"


def test_a_saga_that_turns_back_or_is_parked_waits_for_no_handler() -> None:
    cancelled = fold([*READY, HandlerMissing(0, "do"), CancelRequested(), CompensationBegan("cancelled")])
    assert cancelled.waits_for is None
    pivot = [*AT_PIVOT, *lost(1), *retry(1), HandlerMissing(1, "do"), CancelRequested(), *over(1), *PARKED]
    assert fold(pivot).waits_for is None


def test_a_result_stays_with_its_step() -> None:
    state = fold(AT_PIVOT)
    assert state.steps[0].result is not None
    assert bytes(state.steps[0].result) == b"null"
    assert fold(COMMITTED).committed
