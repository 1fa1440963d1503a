"""The verdict finds each kind of broken promise: a check that cannot fail proves nothing."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace as altered

from chaos.outside import Line
from chaos.verdict import judge, stories
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition
from dotmac.tasks.saga.events import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    CompensationBegan,
    Event,
    Failure,
    SagaCompensated,
    SagaCreated,
    SagaStarted,
    encode_events,
)
from dotmac.tasks.saga.events import AttemptsExhausted as Exhausted
from dotmac.tasks.storage.records import MICROSECONDS, JournalEntry, SagaMeta, SagaRecord

STEPS = tuple(StepDefinition(name=name, operation="act", compensation_operation="undo") for name in "abc")
LOST = Failure("NonRetryableError", final=True)
ENTRIES: list[list[Event]] = [
    [SagaCreated(SagaDefinition("s", "t", "w", STEPS)), SagaStarted(), AttemptStarted(0, 1)],
    [AttemptSucceeded(0, 1), AttemptStarted(1, 1)],
    [AttemptSucceeded(1, 1), AttemptStarted(2, 1)],
    [AttemptFailed(2, 1, LOST), Exhausted(2), CompensationBegan("c failed"), AttemptStarted(1, 1, undo=True)],
    [AttemptSucceeded(1, 1, undo=True), AttemptStarted(0, 1, undo=True)],
    [AttemptSucceeded(0, 1, undo=True), SagaCompensated()],
]


def line(what: str, at: float, step: str, **fields: Any) -> Line:
    plain: dict[str, Any] = {"by": "w0", "pid": 1, "saga": "s", "attempt": 1, "fence": int(at) * MICROSECONDS}
    token = f"{step}{fields.get('undo', False)}"
    return Line(what, at=at, clock=at, step=step, token=token, **{**plain, **fields})


def compensated() -> tuple[SagaRecord, list[Line]]:
    """A saga of three steps whose last one failed, and what the world saw of it."""
    journal = [JournalEntry(n, n + 0.0, 1, f"e{n}", encode_events(events)) for n, events in enumerate(ENTRIES)]
    meta = SagaMeta("s", "t", "w", OperationStatus.COMPENSATED, 0.0, 5.0, epoch=1, length=6, cursor=-1, size=3)
    lines = [line("begin", 0.1, "a"), line("end", 0.2, "a"), line("begin", 1.1, "b"), line("end", 1.2, "b")]
    lines += [line("begin", 2.1, "c"), line("fail", 2.2, "c")]
    lines += [line(what, at, "b", undo=True) for what, at in (("begin", 3.1), ("end", 3.2))]
    lines += [line(what, at, "a", undo=True) for what, at in (("begin", 4.1), ("end", 4.2))]
    return SagaRecord(meta, journal), lines


def findings(record: SagaRecord, lines: list[Line]) -> list[str]:
    return [what for _, what in judge(stories([record], lines), lines)]


def test_what_went_well_is_found_to_have_gone_well() -> None:
    assert findings(*compensated()) == []


def without(lines: list[Line], *numbers: int) -> list[Line]:
    return [each for number, each in enumerate(lines) if number not in numbers]


@pytest.mark.parametrize(
    ("expected", "tamper"),
    [
        ("did not happen", lambda lines: without(lines, 1)),
        ("never journaled", lambda lines: [*lines, line("begin", 2.0, "b", attempt=2)]),
        ("under another epoch or before", lambda lines: [altered(lines[0], at=-1.0), *lines[1:]]),
        ("under another epoch or before", lambda lines: [altered(lines[0], fence=2), *lines[1:]]),
        ("began twice", lambda lines: [lines[0], *lines]),
        ("ran under epoch 1 in", lambda lines: [*lines[:-1], altered(lines[-1], pid=2)]),
        ("tokens of", lambda lines: [*lines[:-1], altered(lines[-1], token=lines[0].token)]),
        ("never undid {'a'}", lambda lines: without(lines, 8, 9)),
        ("never undid {'c'}", lambda lines: without(lines, 5)),
        ("in the order [0, 1]", lambda lines: [*lines[:6], *lines[8:], *lines[6:8]]),
        ("has effects but no journal", lambda lines: [*lines, line("begin", 1.0, "a", saga="other")]),
        ("acknowledged and is gone", lambda lines: [*lines, line("started", 1.0, "", saga="other")]),
        (
            "led to",
            lambda lines: [*lines, *(line("started", 1.0, "", saga=saga, request="r") for saga in ("s", "other"))],
        ),
    ],
)
def test_a_lie_of_the_world_is_found(expected: str, tamper: Any) -> None:
    record, lines = compensated()
    assert any(expected in finding for finding in findings(record, tamper(lines)))


@pytest.mark.parametrize(
    ("expected", "tamper"),
    [
        ("its head counts", lambda record: SagaRecord(altered(record.meta, length=7), record.journal)),
        (
            "an entry twice",
            lambda record: SagaRecord(record.meta, [altered(each, entry_id="e") for each in record.journal]),
        ),
        ("its epochs are", lambda record: SagaRecord(altered(record.meta, epoch=2), record.journal)),
        ("owner w", lambda record: SagaRecord(altered(record.meta, owner="w"), record.journal)),
        (
            "its head says",
            lambda record: SagaRecord(altered(record.meta, status=OperationStatus.COMPLETED), record.journal),
        ),
    ],
)
def test_a_damaged_journal_is_found(expected: str, tamper: Any) -> None:
    record, lines = compensated()
    assert any(expected in finding for finding in findings(tamper(record), lines))
