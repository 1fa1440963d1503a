"""`decide` follows its transition table, and the faults of earlier engines cannot happen."""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import pytest

from dotmac.tasks.errors import InternalError
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.saga.commands import Invoke, Record, Rest, Wait
from dotmac.tasks.saga.events import (
    AttemptFailed,
    AttemptsExhausted,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    CompensationBegan,
    RetryScheduled,
    SagaAdopted,
    SagaCompleted,
    SagaCreated,
    SagaParked,
    SagaStarted,
)
from dotmac.tasks.saga.machine import apply, decide, fold, interruptible, why_not_cancelled
from dotmac.tasks.saga.state import TrackStatus
from saga.model import FINAL, REFUSED, Budget, Node, begin, play, saga
from saga.rows import AT_PIVOT, COMMITTED, NOW, READY, ROWS, Row, bereft, done, lost, over, retry, tried


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_transition_table(row: Row) -> None:
    command = decide(fold(row.journal), NOW, 0.5)
    assert type(command.event if isinstance(command, Record) else command) is row.decided


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_what_is_decided_can_be_folded(row: Row) -> None:
    state = fold(row.journal)
    for now in (NOW, 2000.0):
        command = decide(state, now, 0.5)
        if isinstance(command, Record):
            apply(state, command.event)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_only_a_forward_attempt_before_the_pivot_is_interruptible(row: Row) -> None:
    state = fold(row.journal)
    before_pivot = state.status is OperationStatus.IN_PROGRESS and state.cursor == 0
    assert interruptible(state) is before_pivot


def _run(kinds: str, *script: str, max_retries: int = 0, left: Budget | None = None) -> Node:
    return play(begin(saga(kinds, max_retries=max_retries), left or Budget()), *script)


def _invoked(node: Node) -> list[tuple[int, bool]]:
    return [(event.step, event.undo) for event in node.events if isinstance(event, AttemptStarted)]


def _restarted(node: Node, length: int) -> Node:
    """The saga as another worker finds it when only the first `length` events are durable, and where it ends then."""
    kept = tuple(node.events[:length])
    state = fold(kept)
    adoption = SagaAdopted("w2", state.epoch + 1, "w1")
    state = apply(state, adoption)
    began = any(isinstance(event, CompensationBegan) for event in kept)
    effects = {(event.step, event.undo) for event in kept if isinstance(event, AttemptSucceeded)}
    touched = tuple((index, False) in effects for index in range(len(state.steps)))
    stands = tuple(up and (index, True) not in effects for index, up in enumerate(touched))
    world = replace(node.world, began=began, touched=touched, stands=stands, lowest_undo=len(state.steps))
    return play(replace(node, live=state, saved=state, batch=(), entries=(kept, (adoption,)), world=world))


def test_fault_13_a_crash_between_the_last_step_and_the_final_fact_neither_spins_nor_runs_again() -> None:
    node = _run("CC")
    last = next(i for i, event in enumerate(node.events) if isinstance(event, SagaCompleted))
    resumed = _restarted(node, last)
    assert resumed.live.status is OperationStatus.COMPLETED
    assert _invoked(resumed) == [(0, False), (1, False)]
    assert resumed.events[last + 1 :] == [SagaCompleted()]


def test_a_crash_at_any_point_of_a_good_run_does_not_keep_it_from_completing() -> None:
    node = _run("CC", max_retries=1)
    for length in range(1, len(node.events) + 1):
        assert _restarted(node, length).live.status is OperationStatus.COMPLETED


@pytest.mark.parametrize(
    "script", [("forward succeeds", "forward refused"), ("forward succeeds", "forward timed out, happened")]
)
def test_fault_14_a_saga_that_turned_back_never_runs_forward_again(script: tuple[str, ...]) -> None:
    node = _run("CCN", *script, max_retries=0)
    assert node.live.status is OperationStatus.COMPENSATED
    turned = next(i for i, event in enumerate(node.events) if isinstance(event, CompensationBegan))
    for length in range(turned + 1, len(node.events) + 1):
        resumed = _restarted(node, length)
        began = next(i for i, event in enumerate(resumed.events) if isinstance(event, CompensationBegan))
        later = [event for event in resumed.events[began:] if isinstance(event, AttemptStarted)]
        assert all(event.undo for event in later)
        assert resumed.live.status in (OperationStatus.COMPENSATED, OperationStatus.FAILED)


def test_fault_14_a_compensated_saga_stays_at_rest() -> None:
    node = _run("C", "forward refused")
    state = apply(node.live, SagaAdopted("w2", 2))
    assert decide(state, NOW, 0.5) == Rest()


def test_fault_16_the_deadline_cuts_the_running_attempt_and_undoes_what_was_done() -> None:
    node = _run("CC", "forward succeeds", "forward out of time, happened", max_retries=1)
    assert node.live.status is OperationStatus.COMPENSATED
    assert "out of time: not completed within 1000.0 s" in node.live.reason
    assert _invoked(node) == [(0, False), (1, False), (1, True), (0, True)]


def test_fault_16_a_deadline_that_passed_while_nobody_owned_the_saga_undoes_what_was_done() -> None:
    state = apply(fold([*AT_PIVOT]), SagaAdopted("w2", 2))
    command = decide(state, 1000.0, 0.5)
    assert isinstance(command, Record)
    state = apply(state, command.event)
    command = decide(state, 1000.0, 0.5)
    assert isinstance(command, Record)
    state = apply(state, command.event)
    assert (state.status, state.cursor) == (OperationStatus.COMPENSATING, 0)


def test_fault_16_the_deadline_starts_when_the_saga_starts_and_bounds_every_forward_attempt_and_wait() -> None:
    start = decide(fold([SagaCreated(saga("C", timeout=1.0))]), NOW, 0.5)
    assert start == Record(SagaStarted(NOW + 1.0))
    assert decide(fold([SagaCreated(saga("C", timeout=None))]), NOW, 0.5) == Record(SagaStarted(None))
    assert decide(fold([*READY, *tried(0, 1)]), NOW, 0.5) == Invoke(0, 1, undo=False, deadline_at=1000.0)
    assert decide(fold([*READY, *lost(0), *retry(0, 5000.0)]), NOW, 0.5) == Wait(1000.0)


def test_fault_16_no_deadline_bounds_what_follows_the_pivot_or_undoes() -> None:
    assert decide(fold([*COMMITTED, *tried(2, 1)]), 5000.0, 0.5) == Invoke(2, 1, undo=False, deadline_at=None)
    undoing = next(row for row in ROWS if row.name == "undo running")
    assert decide(fold(undoing.journal), 5000.0, 0.5) == Invoke(0, 1, undo=True, deadline_at=None)


def test_fault_18_a_compensation_that_failed_is_named_and_does_not_stop_the_others() -> None:
    script = ("forward succeeds", "forward succeeds", "forward refused", "undo refused")
    node = _run("CCC", *script)
    assert node.live.status is OperationStatus.FAILED
    assert node.live.open_items == ("compensation of step 'c1' did not succeed: Refused: it did not happen",)
    assert _invoked(node)[-2:] == [(1, True), (0, True)]


def test_fault_18_an_operator_resumes_only_what_was_not_undone() -> None:
    script = ("forward succeeds", "forward succeeds", "forward refused", "undo refused", "resumed on")
    node = _run("CCC", *script, left=Budget(resumes=1))
    assert node.live.status is OperationStatus.COMPENSATED
    assert _invoked(node)[-3:] == [(1, True), (0, True), (1, True)]
    assert node.live.steps[1].undo.attempts == 2


def test_a_retry_waits_as_its_policy_says() -> None:
    assert _run("C", "forward refused", "forward refused", max_retries=1).now == 1.0
    assert _run("C", "forward timed out, happened", "forward refused", "undo refused", max_retries=1).now == 2.0
    assert _run("C", "forward finally refused", max_retries=1).now == 0.0


def test_a_cancelled_pivot_that_was_not_invoked_yet_turns_back() -> None:
    journal = [*AT_PIVOT, *tried(1, 1), CancelRequested()]
    state = fold(journal)
    while state.status is OperationStatus.IN_PROGRESS:
        command = decide(state, NOW, 0.5)
        assert isinstance(command, Record)
        state = apply(state, command.event)
    assert (state.status, state.reason, state.cursor) == (OperationStatus.COMPENSATING, "cancelled", 0)


def test_the_operator_reads_why_a_saga_turned_back() -> None:
    assert _run("C", "forward refused").live.reason == "step 'c0' failed: Refused: it did not happen"
    cancelled = _run("C", "cancelled while in_progress", left=Budget(cancels=1))
    assert cancelled.live.reason == "cancelled: operator"


def test_an_unknown_pivot_is_named_with_its_last_failure() -> None:
    command = decide(fold([*AT_PIVOT, *lost(1), *over(1)]), NOW, 0.5)
    assert command == Record(
        SagaParked(("outcome of the pivot step 'p1' is unknown (last attempt: StepTimedOut: no answer in time)",))
    )


def test_a_step_after_the_pivot_that_fails_is_named() -> None:
    row = next(row for row in ROWS if row.name == "after the pivot, exhausted")
    command = decide(fold(row.journal), NOW, 0.5)
    assert isinstance(command, Record)
    assert isinstance(command.event, SagaParked)
    assert command.event.open_items == (
        "step 'r2' after the point of no return did not succeed: Declined: it never will",
    )


@pytest.mark.parametrize("cut", ["died in forward, happened", "stopped in forward, happened"])
def test_an_interrupted_attempt_is_made_again_at_once_without_using_up_a_retry(cut: str) -> None:
    node = _run("C", cut, left=Budget(deaths=1, stops=1))
    assert (node.live.status, node.now) == (OperationStatus.COMPLETED, 0.0)
    assert _invoked(node) == [(0, False), (0, False)]
    assert node.live.steps[0].forward.spent == 1


@pytest.mark.parametrize("cut", ["died in undo, did not happen", "stopped in undo, did not happen"])
def test_an_interrupted_compensation_is_made_again_at_once_without_using_up_a_retry(cut: str) -> None:
    node = _run("CC", "forward succeeds", "forward refused", cut, left=Budget(deaths=1, stops=1))
    assert (node.live.status, node.now) == (OperationStatus.COMPENSATED, 0.0)
    assert _invoked(node)[-2:] == [(0, True), (0, True)]


@pytest.mark.parametrize("cut", ["died in forward, happened", "stopped in forward, happened"])
def test_a_step_that_was_interrupted_and_then_failed_is_undone_although_the_failure_was_definite(cut: str) -> None:
    node = _run("C", cut, "forward refused", left=Budget(deaths=1, stops=1))
    assert node.live.status is OperationStatus.COMPENSATED
    assert _invoked(node) == [(0, False), (0, False), (0, True)]


@pytest.mark.parametrize("cut", ["died in forward, happened", "stopped in forward, happened"])
def test_an_interrupted_pivot_is_tried_again_and_parks_the_saga_once_it_is_out_of_retries(cut: str) -> None:
    left = Budget(deaths=1, stops=1)
    assert _run("CP", "forward succeeds", cut, left=left).live.status is OperationStatus.COMPLETED
    node = _run("CP", "forward succeeds", cut, "forward refused", left=left)
    assert node.live.status is OperationStatus.FAILED
    assert node.live.open_items == (
        "outcome of the pivot step 'p1' is unknown (last attempt: Refused: it did not happen)",
    )


def test_an_interruption_that_the_handler_called_final_is_final() -> None:
    event = AttemptFailed(0, 1, msgspec.structs.replace(FINAL, interrupted=True))
    assert decide(fold([*READY, *tried(0, 1), event]), NOW, 0.5) == Record(AttemptsExhausted(0))


def test_what_was_lost_together_starts_again_spread_over_a_time_that_grows() -> None:
    bounds = []
    for losses in range(1, 5):
        command = decide(fold([*READY, *bereft(0, *range(2, 2 + losses))]), NOW, 0.5)
        assert isinstance(command, Record)
        bounds.append(command.event.retry_at - NOW if isinstance(command.event, RetryScheduled) else 0.0)
    assert bounds == [0.0, 0.5, 2.0, 8.0]


def test_a_step_that_keeps_losing_its_worker_parks_the_saga_naming_step_and_workers() -> None:
    node = _run("CC", "forward succeeds", *["died in forward, happened"] * 2, max_retries=3, left=Budget(deaths=2))
    assert node.live.status is OperationStatus.FAILED
    (item,) = node.live.open_items
    assert item == "step 'c1' was given up: 2 workers in a row were lost while it ran (of unknown name, w2)"


def test_a_compensation_that_keeps_losing_its_worker_does_not_stop_the_others() -> None:
    script = ("forward succeeds", "forward succeeds", "forward refused", *["died in undo, happened"] * 2)
    node = _run("CCC", *script, max_retries=0, left=Budget(deaths=2))
    assert node.live.status is OperationStatus.FAILED
    (item,) = node.live.open_items
    assert item.startswith("compensation of step 'c1' did not succeed: 2 workers in a row were lost while it ran")
    assert _invoked(node)[-1] == (0, True)
    assert node.live.steps[0].undo.status is TrackStatus.DONE


def test_an_operator_turns_a_saga_back_that_was_parked_for_the_loss_of_its_workers() -> None:
    script = (*["died in forward, happened"] * 2, "resumed backwards")
    node = _run("C", *script, left=Budget(deaths=2, resumes=1))
    assert node.live.status is OperationStatus.COMPENSATED
    assert _invoked(node)[-1] == (0, True)


@pytest.mark.parametrize("kinds", ["C", "N"])
def test_a_cancel_that_meets_the_end_of_the_last_step_turns_the_saga_back(kinds: str) -> None:
    state = fold([SagaCreated(saga(kinds)), SagaStarted(), *done(0), CancelRequested("late")])
    assert decide(state, NOW, 0.5) == Record(CompensationBegan("cancelled: late"))
    with pytest.raises(InternalError):
        apply(state, SagaCompleted())
    state = apply(state, CompensationBegan("cancelled: late"))
    assert (state.status, state.cursor) == (OperationStatus.COMPENSATING, 0 if kinds == "C" else -1)


def test_without_a_cancel_no_saga_turns_back_from_its_end() -> None:
    state = fold([SagaCreated(saga("C")), SagaStarted(), *done(0)])
    with pytest.raises(InternalError):
        apply(state, CompensationBegan("no reason"))


RUNNING_PIVOT = [*AT_PIVOT, *tried(1, 1)]
LOST_AND_WAITING = [*AT_PIVOT, *lost(1), *retry(1)]


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("pending", None),
        ("running", None),
        ("waiting", None),
        ("undo running", None),
        ("parked while undoing", "it is failed"),
        ("compensated", "it is compensated"),
        ("completed", "it is completed"),
        ("after the pivot", "its pivot has completed"),
        ("parked at the pivot", "it is parked \\(an item\\)"),
    ],
)
def test_which_states_a_cancel_turns_back(name: str, refused: str | None) -> None:
    why = why_not_cancelled(fold(next(row for row in ROWS if row.name == name).journal))
    assert why is None if refused is None else why is not None and re.match(refused, why)


def test_a_cancel_at_the_pivot_is_acknowledged_only_where_it_turns_back() -> None:
    for journal, refused in (
        (AT_PIVOT, None),
        ([*AT_PIVOT, *tried(1, 1), AttemptFailed(1, 1, REFUSED), *retry(1)], None),
        (RUNNING_PIVOT, "its pivot 'p1' is running"),
        (LOST_AND_WAITING, "its pivot 'p1' may have happened"),
    ):
        why = why_not_cancelled(fold(journal))
        assert why is None if refused is None else (why or "").startswith(refused)


def test_a_saga_that_a_cancel_turned_back_accepts_another_one_after_its_end() -> None:
    script = ("forward succeeds", "cancelled while in_progress")
    node = _run("CC", *script, left=Budget(cancels=1))
    assert node.live.status is OperationStatus.COMPENSATED
    assert why_not_cancelled(node.live) is None


def test_a_saga_cancelled_past_its_last_step_is_going_to_turn_back() -> None:
    assert why_not_cancelled(fold([SagaCreated(saga("C")), SagaStarted(), *done(0), CancelRequested()])) is None
