"""From a saga's history to the rows of its timeline: spans of time that something took, and moments between them.

A journal says when attempts began and ended; what lies between (waiting for a retry, for a worker, a takeover of what
a lost worker left open) follows from that and is made visible here. Pure: the history and the time come in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ...models import SagaHistoryEntry

SCALE = 1000.0
"""Width of a timeline in its own units: a span's `x` and `width` are parts of it."""

_NARROWEST = 4.0
_ENDINGS = {"completed": "ok", "failed": "failed"}
_MOMENTS = {
    "saga_created": ("created", "info"),
    "saga_started": ("started", "info"),
    "cancel_requested": ("asked to turn back", "warn"),
    "deadline_passed": ("its time was over", "warn"),
    "compensation_began": ("turns back", "warn"),
    "saga_completed": ("completed", "ok"),
    "saga_compensated": ("compensated: everything was undone", "ok"),
    "saga_parked": ("parked: an operator decides", "failed"),
    "saga_resumed": ("resumed by an operator", "info"),
    "step_exhausted": ("no further attempt", "warn"),
    "compensation_exhausted": ("no further attempt to undo it", "failed"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        kind: ``attempt``, ``wait``, ``takeover``, ``operator`` or ``moment``.
        tone: ``ok``, ``failed``, ``warn``, ``info``, ``running`` or ``lost``.
        text: What happened.
        step: The step it is about.
        undo: Whether it belongs to a compensation.
        start: When it began.
        end: When it ended; None for a moment.
        open: Whether it goes on at the time of looking.
        note: More: an error, a reason.
        x: Where it begins, in parts of `SCALE`.
        width: How long it took, likewise.
    """

    kind: str
    tone: str
    text: str
    start: datetime
    step: str | None = None
    undo: bool = False
    end: datetime | None = None
    open: bool = False
    note: str = ""
    attempt: int | None = None
    x: float = 0.0
    width: float = _NARROWEST

    @property
    def seconds(self) -> float | None:
        """How long it took, or takes so far; None for a moment."""
        return None if self.end is None else max((self.end - self.start).total_seconds(), 0.0)


@dataclass(slots=True)
class _Open:
    """What is under way while the history is read."""

    attempt: Row | None = None
    wait: Row | None = None
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> int:
        self.rows.append(row)
        return len(self.rows) - 1

    def end_wait(self, at: datetime) -> None:
        if self.wait is not None:
            self._swap(self.wait, replace(self.wait, end=at, open=False))
            self.wait = None

    def end_attempt(self, at: datetime, tone: str, text: str, note: str) -> None:
        if self.attempt is not None:
            ended = replace(self.attempt, end=at, tone=tone, text=f"{self.attempt.text}: {text}", note=note, open=False)
            self._swap(self.attempt, ended)
            self.attempt = None

    def _swap(self, old: Row, new: Row) -> None:
        for index in range(len(self.rows) - 1, -1, -1):
            if self.rows[index] is old:
                self.rows[index] = new
                return


def timeline(history: Iterable[SagaHistoryEntry], now: datetime, *, ended: bool) -> list[Row]:
    """The rows, in the order in which they began.

    Args:
        history: Oldest first.
        now: What still goes on reaches to here.
        ended: Whether the saga rests, so that nothing goes on.
    """
    state = _Open()
    for entry in history:
        _read(state, entry)
    latest = max((row.end or row.start for row in state.rows), default=now)
    reach = latest if ended else max(latest, now)
    rows = [replace(row, end=reach) if row.open else row for row in state.rows]
    return _placed(rows, reach)


def _read(state: _Open, entry: SagaHistoryEntry) -> None:
    at, name, details = entry.timestamp, entry.event, entry.details
    side, _, what = name.partition("_")
    if side in ("step", "compensation") and what == "started":
        state.end_wait(at)
        text = f"{'undo, ' if side == 'compensation' else ''}attempt {entry.attempt}"
        state.attempt = Row(
            "attempt", "running", text, at, entry.step, side == "compensation", at, open=True, attempt=entry.attempt
        )
        state.add(state.attempt)
    elif side in ("step", "compensation") and what in _ENDINGS:
        failure = details.get("failure") or {}
        text = "may have happened" if failure.get("unknown") else what
        tone = "lost" if failure.get("unknown") else _ENDINGS[what]
        state.end_attempt(at, tone, text, _failure_text(failure))
    elif what == "retry_scheduled":
        until = details.get("retry_at")
        due = "" if until is None else f"due {datetime.fromisoformat(until):%H:%M:%S}"
        undo = side == "compensation"
        state.wait = Row("wait", "info", "waits for its next attempt", at, entry.step, undo, at, open=True, note=due)
        state.add(state.wait)
    elif name == "saga_adopted":
        _adopted(state, at, details)
    elif name in _MOMENTS:
        text, tone = _MOMENTS[name]
        state.add(
            Row("moment", tone, text, at, entry.step, name.startswith("compensation_e"), note=_moment_note(details))
        )
    else:
        state.add(_note(entry))


def _adopted(state: _Open, at: datetime, details: dict[str, Any]) -> None:
    previous = details.get("previous")
    if previous is None:
        state.add(Row("moment", "info", f"taken up by {details['worker']}", at))
        return
    # The attempt was cut off when its worker was lost, of which this is the first trace.
    state.end_attempt(at, "lost", "its worker was lost", "")
    state.add(
        Row(
            "takeover",
            "warn",
            f"taken over by {details['worker']}",
            at,
            note=f"from {previous}, epoch {details['epoch']}",
        )
    )


def _note(entry: SagaHistoryEntry) -> Row:
    """An entry beside the journal; those of the service tell what an operator did."""
    details = entry.details
    who = details.get("who")
    text = entry.event.removeprefix("operator_").replace("_", " ")
    note = str(details.get("reason") or details.get("problem") or "")
    if who is None:
        return Row("moment", "info", text, entry.timestamp, note=note)
    return Row("operator", "info", f"{text}, asked for by {who}", entry.timestamp, note=note)


def _moment_note(details: dict[str, Any]) -> str:
    items = details.get("open_items")
    if items:
        return "; ".join(map(str, items))
    again = f"forward again from step {details['from_step']}" if "from_step" in details else ""
    return "; ".join(filter(None, (again, str(details.get("reason") or ""))))


def _failure_text(failure: dict[str, Any]) -> str:
    if not failure:
        return ""
    message = failure.get("message")
    return f"{failure.get('error')}: {message}" if message else str(failure.get("error"))


def _placed(rows: list[Row], reach: datetime) -> list[Row]:
    if not rows:
        return rows
    begin = min(row.start for row in rows)
    whole = max((reach - begin).total_seconds(), 1e-9)
    placed = []
    for row in rows:
        x = min((row.start - begin).total_seconds() / whole * SCALE, SCALE - _NARROWEST)
        width = max((row.seconds or 0.0) / whole * SCALE, _NARROWEST)
        placed.append(replace(row, x=round(x, 1), width=round(min(width, SCALE - x), 1)))
    return placed
