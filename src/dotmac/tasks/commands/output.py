"""What commands print: tables for people, or one JSON document for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..models import OperationStatus
from ..service.plain import plain

_WIDE = 200  # columns where nobody looks: what is piped on must not be cut
_LONGEST = 300  # characters of a value that are shown
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_COLOURS = {
    "pending": "cyan",
    "in_progress": "blue",
    "completed": "green",
    "compensating": "yellow",
    "compensated": "magenta",
    "failed": "bold red",
    "unknown": "bold yellow",
}


def console(*, error: bool = False) -> Console:
    """Standard output, or standard error, as a console."""
    stream = sys.stderr if error else sys.stdout
    return Console(stderr=error, width=None if stream.isatty() else _WIDE, highlight=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], nothing: str) -> None:
    """A table, or what to say where there is nothing to show."""
    if not rows:
        console().print(Text(nothing, style="dim"))
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row))
    console().print(table)


def short_json(value: object) -> str:
    """A value as JSON on one line, cut where it is long."""
    text = plain(msgspec.json.encode(value).decode())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def status(value: OperationStatus | None) -> Text:
    """A status in its colour."""
    if value is None:
        return Text("")
    name = "parked" if value is OperationStatus.FAILED else str(value)
    return Text(name.replace("_", " "), style=_COLOURS[value])


def clock(at: datetime) -> str:
    """A point in time, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float) -> str:
    """A span of time in its largest unit."""
    size = abs(seconds)
    if size < _MINUTE:
        return f"{seconds:.0f} s"
    if size < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.0f} h" if size < _DAY else f"{seconds / _DAY:.0f} d"


def age(at: datetime) -> str:
    """How long ago that was."""
    return span(max((datetime.now(UTC) - at).total_seconds(), 0.0))


def until(at: datetime) -> str:
    """How long until then, by this machine's clock."""
    left = (at - datetime.now(UTC)).total_seconds()
    return span(left) if left > 0 else "over"
