"""One saga in a terminal: as it stands, what happened to it, and live."""

from __future__ import annotations

import trio
from rich.text import Text

from ..manager import BackgroundOperationsManager
from ..models import OperationStatus, SagaHistoryEntry, SagaOutcome, SagaStep, SagaWorkflow
from ..service.plain import plain
from ..storage.history import HistoryPosition, SagaHistory, entries_after
from .output import clock, console, hidden, print_table, short_json, shown, status

_LOOK_EVERY = 0.5  # seconds
_TONES = {
    "completed": "green",
    "failed": "red",
    "exhausted": "red",
    "parked": "bold red",
    "adopted": "yellow",
    "missing": "yellow",
}


def print_saga(saga: SagaWorkflow) -> None:
    """The saga's head, its steps, and what is open."""
    out = console()
    head = [("saga", saga.saga_id), ("tenant", saga.tenant_id), ("type", saga.workflow_type)]
    for name, value in head:
        out.print(Text.assemble((f"{name:<9}", "dim"), plain(value)))
    out.print(Text.assemble(("status   ", "dim"), status(saga.status)))
    times = f"{clock(saga.created_at)}, updated {clock(saga.updated_at)} (UTC)"
    out.print(Text.assemble(("created  ", "dim"), times))
    if saga.owner is not None:
        out.print(Text.assemble(("worker   ", "dim"), plain(saga.owner)))
    if saga.waiting_for is not None:
        out.print(Text.assemble(("waits    ", "dim"), (plain(saga.waiting_for), "yellow")))
    if saga.error is not None:
        out.print(Text.assemble(("error    ", "dim"), (plain(saga.error), "red")))
    print_table(
        ["step", "operation", "kind", "status", "tries", "undone", "result or error"],
        [_step_row(step) for step in saga.steps],
        "no steps",
    )
    for item in saga.open_items:
        out.print(Text.assemble(("open: ", "bold red"), plain(item)))


def print_history(entries: list[SagaHistoryEntry]) -> None:
    """Everything that happened, a line each."""
    for entry in entries:
        print_entry(entry)


def print_entry(entry: SagaHistoryEntry) -> None:
    """One line of history."""
    what = entry.event.rpartition("_")[2]
    step = "" if entry.step is None else plain(entry.step)
    attempt = "" if entry.attempt is None else f" #{entry.attempt}"
    details = {name: value for name, value in entry.details.items() if value is not None}
    console().print(
        Text.assemble(
            (f"{entry.timestamp:%H:%M:%S.%f}"[:-3], "dim"),
            "  ",
            (f"{plain(entry.event):<28}", _TONES.get(what, "")),
            f"{step}{attempt}",
            (f"  {short_json(details)}" if details else "", "dim"),
        )
    )


def print_outcome(outcome: SagaOutcome) -> None:
    """How the saga ended."""
    told = Text.assemble(outcome.saga_id, " ", status(outcome.status))
    if outcome.error is not None:
        told.append(f": {plain(outcome.error)}")
    console().print(told)


async def follow(manager: BackgroundOperationsManager, saga_id: str, *, quiet: bool, reveal: bool) -> SagaOutcome:
    """Wait for the saga's end, and print its history as it comes unless it shall be quiet."""
    if quiet:
        return hidden(await manager.saga_handle(saga_id).result(), reveal=reveal)
    history, seen = SagaHistory(saga_id), None
    while True:
        ended = (await manager.extend_saga_history(history)).is_final
        new = entries_after(history.entries, seen)
        if new is None:
            console().print("the stored history changed; from its start:")
            new = history.entries
        print_history([hidden(entry, reveal=reveal) for entry in new])
        seen = HistoryPosition.end_of(history.entries)
        if ended:
            return hidden(await manager.saga_handle(saga_id).result(), reveal=reveal)
        await trio.sleep(_LOOK_EVERY)


def _step_row(step: SagaStep) -> list[object]:
    undone = Text("") if step.compensation_status is None else status(step.compensation_status)
    if step.compensation_attempts:
        undone.append(f" {shown('×', 'x')}{step.compensation_attempts}")
    told = step.compensation_error or step.error
    if told is None and step.status in (OperationStatus.COMPLETED, OperationStatus.COMPENSATED):
        told = short_json(step.result)
    waits = "" if step.next_attempt_at is None else f"next attempt at {clock(step.next_attempt_at)}; "
    return [
        step.name, step.operation, step.kind, status(step.status), step.attempts, undone, f"{waits}{told or ''}"
    ]  # fmt: skip
