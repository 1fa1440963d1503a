"""What users read is what the journal says: no status looks better than the truth."""

from __future__ import annotations

import pytest

from dotmac.tasks.models import OperationStatus, SagaStep, SagaWorkflow
from dotmac.tasks.saga.events import Event, HandlerMissing, SagaCompensated, SagaResumed
from dotmac.tasks.saga.machine import fold
from dotmac.tasks.saga.views import history_entries, outcome_view, utc, workflow_view
from saga.model import Budget, begin, play, saga
from saga.rows import (
    COMMITTED,
    CREATED,
    DEFINITION,
    KEPT,
    LOST_PIVOT,
    PARKED,
    READY,
    ROWS,
    TURNED,
    Row,
    done,
    lost,
    retry,
    tried,
)

NAMES = tuple(step.name for step in DEFINITION.steps)
PENDING, IN_PROGRESS, COMPLETED = OperationStatus.PENDING, OperationStatus.IN_PROGRESS, OperationStatus.COMPLETED
COMPENSATED, FAILED, UNKNOWN = OperationStatus.COMPENSATED, OperationStatus.FAILED, OperationStatus.UNKNOWN


def _view(journal: list[Event]) -> SagaWorkflow:
    return workflow_view(fold(journal), created_at=1.0, updated_at=2.0, owner="w1", epoch=3)


def _first(journal: list[Event]) -> SagaStep:
    return _view(journal).steps[0]


def test_the_head_is_shown() -> None:
    view = _view(CREATED)
    assert (view.saga_id, view.tenant_id, view.workflow_type) == ("saga-CPR", "tenant", "model")
    assert (view.created_at, view.updated_at) == (utc(1.0), utc(2.0))
    assert (view.owner, view.epoch, view.status, view.error, view.open_items) == ("w1", 3, PENDING, None, [])


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        (READY, PENDING),
        ([*READY, *tried(0, 1)], IN_PROGRESS),
        ([*READY, *lost(0)], IN_PROGRESS),
        ([*READY, *lost(0), *retry(0)], IN_PROGRESS),
        (COMMITTED, COMPLETED),
        (TURNED, COMPLETED),
        ([*TURNED, *done(0, undo=True)], COMPENSATED),
    ],
)
def test_a_step_forward(journal: list[Event], expected: OperationStatus) -> None:
    assert _first(journal).status is expected


def test_a_step_that_may_have_happened_is_unknown_not_failed() -> None:
    assert _view(LOST_PIVOT).steps[1].status is UNKNOWN
    assert _view(TURNED).steps[1].status is FAILED


@pytest.mark.parametrize(
    ("journal", "expected"),
    [
        (COMMITTED, None),
        (TURNED, PENDING),
        ([*TURNED, *tried(0, 1, undo=True)], IN_PROGRESS),
        ([*TURNED, *lost(0, undo=True), *retry(0, undo=True)], IN_PROGRESS),
        ([*TURNED, *done(0, undo=True)], COMPLETED),
        (KEPT, FAILED),
        ([*KEPT, *PARKED, SagaResumed()], PENDING),
    ],
)
def test_a_step_backward(journal: list[Event], expected: OperationStatus | None) -> None:
    assert _first(journal).compensation_status is expected


def test_a_step_that_has_nothing_to_undo_shows_no_compensation() -> None:
    undone = _view([*TURNED, *done(0, undo=True), SagaCompensated()])
    assert [step.compensation_status for step in undone.steps] == [COMPLETED, None, None]


def test_a_waiting_step_shows_its_failure_and_when_it_is_due() -> None:
    step = _first([*READY, *lost(0), *retry(0, 100.0)])
    assert (step.attempts, step.retry_count, step.next_attempt_at) == (1, 0, utc(100.0))
    assert step.error == "StepTimedOut: no answer in time"
    undo = _first([*TURNED, *lost(0, undo=True), *retry(0, 100.0, undo=True)])
    assert (undo.compensation_attempts, undo.next_attempt_at) == (1, utc(100.0))
    assert undo.compensation_error == "StepTimedOut: no answer in time"


def test_a_saga_names_the_handler_that_it_waits_for() -> None:
    assert _view([*READY, HandlerMissing(0, "nope")]).waiting_for == "no worker has a handler for operation 'nope'"
    assert _view(READY).waiting_for is None


def test_results_are_shown_as_values() -> None:
    node = play(begin(saga("CN"), Budget()))
    view = workflow_view(node.live, created_at=1.0, updated_at=2.0)
    assert view.results == {"c0": {"id": "r-1"}, "n1": {"id": "r-1"}}
    outcome = outcome_view(node.live)
    assert outcome.completed
    assert (outcome.results, outcome.error, outcome.open_items) == (view.results, None, ())


def test_the_outcome_has_only_the_results_of_steps_that_stand() -> None:
    node = play(begin(saga("NCC"), Budget()), "forward succeeds", "forward succeeds", "forward refused")
    outcome = outcome_view(node.live)
    assert outcome.status is COMPENSATED
    assert outcome.results == {"n0": {"id": "r-1"}}
    assert outcome.error == "step 'c2' failed: Refused: it did not happen"


@pytest.mark.parametrize("row", [row for row in ROWS if row.name.startswith("parked")], ids=str)
def test_a_parked_saga_says_why(row: Row) -> None:
    view = _view(row.journal)
    assert view.open_items == ["an item"]
    assert view.error is not None
    assert "an item" in view.error


def test_each_fact_is_one_line_of_history() -> None:
    names: list[str] = []
    for event in [*READY, *lost(0), *retry(0), *KEPT[3:], SagaResumed(undo=True, reason="vouched")]:
        (line,) = history_entries(NAMES, "s", 4, 5.0, [event])
        assert (line.saga_id, line.sequence, line.timestamp) == ("s", 4, utc(5.0))
        names.append(line.event)
    assert names[:6] == [
        *("saga_created", "saga_started", "step_started", "step_failed", "step_retry_scheduled", "step_completed"),
    ]
    assert names[-4:] == ["compensation_started", "compensation_failed", "compensation_exhausted", "saga_resumed"]


def test_history_shows_names_and_details_but_no_indices() -> None:
    created, _, started, failed = history_entries(NAMES, "s", 0, 5.0, [*READY, *lost(0)])
    assert created.details == {"workflow_type": "model", "steps": list(NAMES)}
    assert (started.step, started.attempt, started.details) == ("c0", 1, {})
    assert failed.details == {"failure": {"error": "StepTimedOut", "message": "no answer in time", "unknown": True}}
    (resumed,) = history_entries(NAMES, "s", 0, 5.0, [SagaResumed(undo=True)])
    assert resumed.details == {"undo": True}
    (resumed,) = history_entries(NAMES, "s", 0, 5.0, [SagaResumed(from_step=1)])
    assert resumed.details["from_step"] == NAMES[1]
