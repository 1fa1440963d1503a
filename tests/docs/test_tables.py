"""Compares the README's tables and its picture of statuses with the code they describe."""

from __future__ import annotations

import re
from dataclasses import fields

import msgspec
import pytest

import dotmac.tasks
from docs.documents import ROOT, all_blocks, names_in, table
from dotmac.tasks import DotmacTasksError, HandlerContext, MemoryStorage, RetryPolicy, Settings, StepKind
from dotmac.tasks.errors import InternalError
from dotmac.tasks.metrics import POINTS
from dotmac.tasks.saga.commands import Invoke, Record
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition
from dotmac.tasks.saga.events import (
    AttemptFailed,
    AttemptSucceeded,
    CancelRequested,
    Event,
    Failure,
    SagaCreated,
    SagaResumed,
)
from dotmac.tasks.saga.machine import apply, decide
from dotmac.tasks.saga.state import SagaState

_README = (ROOT / "README.md").read_text()


def test_every_setting_is_listed_with_its_variable_and_default() -> None:
    listed = {names_in(row[0])[0]: (names_in(row[1])[0], row[2]) for row in table("Setting")}
    assert listed.keys() == {field.name for field in fields(Settings)}
    for name, (variable, default) in listed.items():
        actual = getattr(Settings(), name)
        assert default == ("none" if actual is None else f"{actual:g}" if actual < 1e6 else str(actual))
        value = "redis://there" if name == "redis_url" else "17"
        assert str(getattr(Settings.load({variable: value}), name)) in (value, f"{value}.0")


async def test_every_field_of_a_step_is_listed() -> None:
    listed = [names_in(row[0])[0] for row in table("Field")]
    async with dotmac.tasks.BackgroundOperationsManager(storage=MemoryStorage()) as manager:
        with pytest.raises(dotmac.tasks.InvalidInput) as refused:
            await manager.start_saga(tenant_id="t", workflow_type="w", steps=[{"nothing": 1}])
    assert refused.value.reason.partition("a step has: ")[2].split(", ") == listed


def test_the_defaults_of_a_retry_policy_are_told() -> None:
    told = re.search(r"`RetryPolicy\((.*)\)`", _README)
    assert told is not None
    assert eval(f"dict({told[1]})") == msgspec.structs.asdict(RetryPolicy())  # noqa: S307 - the document is ours


def test_every_kind_of_step_is_named() -> None:
    row = next(row for row in table("Field") if names_in(row[0]) == ["kind"])
    assert names_in(row[1]) == list(StepKind)


def test_everything_in_a_handlers_context_is_listed() -> None:
    listed = {name for row in table("`context`") for name in names_in(row[0])}
    assert listed == {name for name in HandlerContext.__struct_fields__ if not name.startswith("_")} | {"heartbeat()"}


def test_every_public_error_is_listed() -> None:
    public = [getattr(dotmac.tasks, name) for name in dotmac.tasks.__all__]
    errors = {e.__name__ for e in public if isinstance(e, type) and issubclass(e, DotmacTasksError)}
    assert {names_in(row[0])[0] for row in table("Error")} == errors


def test_every_metrics_point_is_listed() -> None:
    section = _README.partition("## Metrics hooks")[2].partition("\n## ")[0]
    listed = section.partition("There are hooks for these points")[2].partition("\n\n")[0]
    assert [name for name in names_in(listed) if name != "_hook"] == list(POINTS)


def test_the_picture_of_statuses_has_exactly_the_changes_that_can_happen() -> None:
    pictures = [block for block in all_blocks() if block.language == "text" and block.output_of is None]
    drawn = {tuple(re.split(r"\s+→ (\w+)\s", line)[:2]) for block in pictures for line in block.code.splitlines()}
    assert drawn == status_changes()


def status_changes() -> set[tuple[str, ...]]:
    """Every change of status that a saga with one step of each kind can go through, by trying everything."""
    steps = (
        StepDefinition("c", "op", compensation_operation="undo", retry=_ONCE, compensation_retry=_ONCE),
        StepDefinition("p", "op", kind=StepKind.PIVOT, retry=_ONCE),
        StepDefinition("r", "op", kind=StepKind.RETRIABLE, retry=_ONCE),
    )
    begin = apply(None, SagaCreated(SagaDefinition("s", "t", "w", steps, timeout_seconds=1)))
    changes: set[tuple[str, ...]] = set()
    seen: set[bytes] = set()
    open_ends = [(begin, 0)]
    while open_ends:
        state, resumes = open_ends.pop()
        key = msgspec.json.encode((state, resumes))
        if key in seen:
            continue
        seen.add(key)
        for event in possible(state, resumes):
            try:
                following = apply(state, event)
            except InternalError:  # an operator may turn a saga back only at an unknown pivot, and not rewind it anyhow
                assert isinstance(event, SagaResumed)
                continue
            if following.status is not state.status:
                changes.add((str(state.status), str(following.status)))
            open_ends.append((following, resumes + isinstance(event, SagaResumed)))
    return changes


def possible(state: SagaState, resumes: int) -> list[Event]:
    events: list[Event] = []
    for now in (0.0, 1e9):  # in time, and too late
        command = decide(state, now, 0.0)
        if isinstance(command, Record):
            events.append(command.event)
        elif isinstance(command, Invoke):
            events.append(AttemptSucceeded(command.step, command.attempt, command.undo))
            for unknown in (False, True):
                failure = Failure("Broken", unknown=unknown)
                events.append(AttemptFailed(command.step, command.attempt, failure, command.undo))
    if not state.status.is_final:
        events.append(CancelRequested())
    elif state.status == "failed" and resumes < 2:
        events += [SagaResumed(), SagaResumed(undo=True)]
        events += [SagaResumed(from_step=step) for step in range(len(state.steps))]
    return events


_ONCE = RetryPolicy(max_retries=0)
