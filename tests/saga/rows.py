"""The rows of the machine's transition table: for each a journal that leads there, and what may follow.

`ROWS` is written by hand from the table in `dotmac.tasks.saga.machine`, so that the table, `decide` and `apply`
are each checked against something that none of them computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from dotmac.tasks.saga.commands import Invoke, Rest, Wait
from dotmac.tasks.saga.events import (
    AttemptFailed,
    AttemptsExhausted,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    CompensationBegan,
    DeadlinePassed,
    Event,
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
from saga.model import DRAINED, FINAL, REFUSED, TIMED_OUT, saga

NOW = 50.0
DEFINITION = saga("CPR", max_retries=1)
ANYWHERE = frozenset({SagaAdopted, CancelRequested})


def tried(step: int, attempt: int, *, undo: bool = False) -> list[Event]:
    return [AttemptStarted(step, attempt, undo)]


def done(step: int, attempt: int = 1, *, undo: bool = False) -> list[Event]:
    return [AttemptStarted(step, attempt, undo), AttemptSucceeded(step, attempt, undo)]


def lost(step: int, attempt: int = 1, *, undo: bool = False) -> list[Event]:
    """An attempt of unknown outcome."""
    return [AttemptStarted(step, attempt, undo), AttemptFailed(step, attempt, TIMED_OUT, undo)]


def stopped(step: int, attempt: int = 1, *, undo: bool = False) -> list[Event]:
    """An attempt that an orderly stop cut off."""
    return [AttemptStarted(step, attempt, undo), AttemptFailed(step, attempt, DRAINED, undo)]


def bereft(step: int, *epochs: int, first: int = 1, undo: bool = False) -> list[Event]:
    """Attempts that each ended with the loss of their worker: adopted under these epochs, tried again each time."""
    events: list[Event] = []
    for attempt, epoch in enumerate(epochs, first):
        if attempt > first + 1:
            events += retry(step, 0.0, undo=undo)
        events += [AttemptStarted(step, attempt, undo), SagaAdopted(f"w{epoch}", epoch, f"w{epoch - 1}")]
    return events


def refused(step: int, attempt: int = 1, *, undo: bool = False) -> list[Event]:
    return [AttemptStarted(step, attempt, undo), AttemptFailed(step, attempt, FINAL, undo)]


def retry(step: int, at: float = 100.0, *, undo: bool = False) -> list[Event]:
    return [RetryScheduled(step, at, undo)]


def over(step: int, *, undo: bool = False) -> list[Event]:
    return [AttemptsExhausted(step, undo)]


CREATED: list[Event] = [SagaCreated(DEFINITION)]
READY = [*CREATED, SagaStarted(1000.0)]
CANCEL: list[Event] = [CancelRequested("operator")]
LATE: list[Event] = [DeadlinePassed()]
PARKED: list[Event] = [SagaParked(("an item",))]
AT_PIVOT = [*READY, *done(0)]
LOST_PIVOT = [*AT_PIVOT, *lost(1), *over(1)]
PIVOT_AGAIN = [*LOST_PIVOT, *PARKED, SagaResumed()]
COMMITTED = [*AT_PIVOT, *done(1)]
TURNED = [*AT_PIVOT, *refused(1), *over(1), CompensationBegan("declined")]
POISONED = [*READY, *bereft(0, 2, 3, 4, 5, 6), *over(0)]
KEPT = [*TURNED, *refused(0, undo=True), *over(0, undo=True)]


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        decided: The command, or the event to record, at time `NOW`.
        legal: The events that may follow, beside those that may follow anywhere.
    """

    name: str
    journal: list[Event]
    decided: type
    legal: frozenset[type]

    def __str__(self) -> str:
        return self.name


def row(name: str, journal: list[Event], decided: type, *legal: type) -> Row:
    # Where an attempt may start, its handler may be missing.
    missing = {HandlerMissing} if AttemptStarted in legal else set()
    return Row(name, journal, decided, frozenset(legal) | missing | ANYWHERE)


_Ended = (AttemptSucceeded, AttemptFailed)

ROWS = [
    row("pending", CREATED, SagaStarted, SagaStarted),
    row("pending, cancelled", [*CREATED, *CANCEL], CompensationBegan, SagaStarted, CompensationBegan),
    row("ready", READY, AttemptStarted, AttemptStarted, DeadlinePassed),
    row(
        "ready, cancelled",
        [*READY, *CANCEL],
        CompensationBegan,
        *(CompensationBegan, AttemptStarted, DeadlinePassed),
    ),
    row("ready, out of time", [*READY, *LATE], CompensationBegan, CompensationBegan, AttemptStarted),
    row("running", [*READY, *tried(0, 1)], Invoke, *_Ended, DeadlinePassed),
    row("running, cancelled", [*READY, *tried(0, 1), *CANCEL], AttemptFailed, *_Ended, DeadlinePassed),
    row("failed", [*READY, *lost(0)], RetryScheduled, RetryScheduled, AttemptsExhausted, DeadlinePassed),
    row(
        "failed for good",
        [*READY, *refused(0)],
        AttemptsExhausted,
        *(RetryScheduled, AttemptsExhausted),
        DeadlinePassed,
    ),
    row("failed, out of time", [*READY, *lost(0), *LATE], AttemptsExhausted, RetryScheduled, AttemptsExhausted),
    row(
        "failed as often as allowed",
        [*READY, *lost(0), *retry(0), *lost(0, 2), *LATE],
        AttemptsExhausted,
        *(RetryScheduled, AttemptsExhausted),
    ),
    row(
        "stopped",
        [*READY, *stopped(0)],
        AttemptStarted,
        *(AttemptStarted, RetryScheduled, AttemptsExhausted, DeadlinePassed),
    ),
    row(
        "stopped, out of retries",
        [*READY, *lost(0), *retry(0, 0.0), *stopped(0, 2), *tried(0, 3), AttemptFailed(0, 3, DRAINED)],
        AttemptStarted,
        *(AttemptStarted, RetryScheduled, AttemptsExhausted, DeadlinePassed),
    ),
    row(
        "stopped, cancelled",
        [*READY, *stopped(0), *CANCEL],
        AttemptsExhausted,
        *(AttemptStarted, RetryScheduled, AttemptsExhausted, DeadlinePassed),
    ),
    row(
        "bereft of one worker",
        [*READY, *bereft(0, 2)],
        AttemptStarted,
        *(AttemptStarted, RetryScheduled, AttemptsExhausted, DeadlinePassed),
    ),
    row(
        "bereft of two workers",
        [*READY, *bereft(0, 2, 3)],
        RetryScheduled,
        *(AttemptStarted, RetryScheduled, AttemptsExhausted, DeadlinePassed),
    ),
    row(
        "bereft too often",
        [*READY, *bereft(0, 2, 3, 4, 5, 6)],
        AttemptsExhausted,
        *(AttemptStarted, RetryScheduled, AttemptsExhausted, DeadlinePassed),
    ),
    row("poisoned", POISONED, SagaParked, SagaParked, DeadlinePassed),
    row("poisoned, cancelled", [*POISONED, *CANCEL], CompensationBegan, CompensationBegan, DeadlinePassed),
    row("waiting", [*READY, *lost(0), *retry(0)], Wait, AttemptStarted, DeadlinePassed),
    row("waiting, due", [*READY, *lost(0), *retry(0, NOW)], AttemptStarted, AttemptStarted, DeadlinePassed),
    row(
        "waiting, out of time",
        [*READY, *lost(0), *retry(0), *LATE],
        AttemptsExhausted,
        *(AttemptStarted, AttemptsExhausted),
    ),
    row("exhausted", [*READY, *refused(0), *over(0)], CompensationBegan, CompensationBegan, DeadlinePassed),
    row(
        "exhausted, cancelled",
        [*READY, *lost(0), *CANCEL, *over(0)],
        CompensationBegan,
        *(CompensationBegan, DeadlinePassed),
    ),
    row("pivot cut off", LOST_PIVOT, SagaParked, SagaParked, DeadlinePassed),
    row("pivot again", PIVOT_AGAIN, AttemptStarted, AttemptStarted),
    row("pivot again, cancelled", [*PIVOT_AGAIN, *CANCEL], AttemptsExhausted, AttemptsExhausted, AttemptStarted),
    row("after the pivot", COMMITTED, AttemptStarted, AttemptStarted),
    row("after the pivot, cancelled", [*COMMITTED, *CANCEL], AttemptStarted, AttemptStarted),
    row(
        "after the pivot, failed, cancelled",
        [*COMMITTED, *CANCEL, *lost(2)],
        RetryScheduled,
        *(RetryScheduled, AttemptsExhausted),
    ),
    row("after the pivot, waiting, cancelled", [*COMMITTED, *CANCEL, *lost(2), *retry(2)], Wait, AttemptStarted),
    row("after the pivot, exhausted", [*COMMITTED, *refused(2), *over(2)], SagaParked, SagaParked),
    row("past the last step", [*COMMITTED, *done(2)], SagaCompleted, SagaCompleted),
    row("undo ready", TURNED, AttemptStarted, AttemptStarted),
    row("undo running", [*TURNED, *tried(0, 1, undo=True)], Invoke, *_Ended),
    row("undo running, cancelled", [*TURNED, *tried(0, 1, undo=True), *CANCEL], Invoke, *_Ended),
    row("undo failed", [*TURNED, *lost(0, undo=True)], RetryScheduled, RetryScheduled, AttemptsExhausted),
    row(
        "undo failed for good",
        [*TURNED, *refused(0, undo=True)],
        AttemptsExhausted,
        *(RetryScheduled, AttemptsExhausted),
    ),
    row(
        "undo stopped",
        [*TURNED, *stopped(0, undo=True)],
        AttemptStarted,
        *(AttemptStarted, RetryScheduled, AttemptsExhausted),
    ),
    row(
        "undo bereft too often",
        [*TURNED, *bereft(0, 2, 3, 4, 5, 6, undo=True)],
        AttemptsExhausted,
        *(AttemptStarted, RetryScheduled, AttemptsExhausted),
    ),
    row("undo waiting", [*TURNED, *lost(0, undo=True), *retry(0, undo=True)], Wait, AttemptStarted),
    row("undo due", [*TURNED, *lost(0, undo=True), *retry(0, NOW, undo=True)], AttemptStarted, AttemptStarted),
    row("all undone", [*TURNED, *done(0, undo=True)], SagaCompensated, SagaCompensated),
    row("one not undone", KEPT, SagaParked, SagaParked),
    row("completed", [*COMMITTED, *done(2), SagaCompleted()], Rest),
    row("compensated", [*TURNED, *done(0, undo=True), SagaCompensated()], Rest),
    row("parked while undoing", [*KEPT, *PARKED], Rest, SagaResumed),
    row("parked after the pivot", [*COMMITTED, *refused(2), *over(2), *PARKED], Rest, SagaResumed),
    row("parked as poisoned", [*POISONED, *PARKED], Rest, SagaResumed),
    row("parked at the pivot", [*LOST_PIVOT, *PARKED], Rest, SagaResumed),
]


def candidates(step: int, attempts: int, epoch: int, *, undo: bool) -> list[Event]:
    """One event of each type, fitting the cursor as well as it can."""
    return [
        SagaCreated(DEFINITION),
        SagaStarted(1000.0),
        SagaAdopted("w2", epoch + 1),
        AttemptStarted(step, attempts + 1, undo),
        AttemptSucceeded(step, attempts, undo),
        AttemptFailed(step, attempts, REFUSED, undo),
        RetryScheduled(step, 100.0, undo),
        AttemptsExhausted(step, undo),
        HandlerMissing(step, "do", undo),
        CancelRequested("again"),
        DeadlinePassed(),
        CompensationBegan("because"),
        SagaCompleted(),
        SagaCompensated(),
        SagaParked(("an item",)),
        SagaResumed(),
    ]
