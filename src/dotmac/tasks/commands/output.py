"""What commands print: tables for people, or one JSON document for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..models import OperationStatus
from ..service.plain import plain
from ..service.redaction import Redaction

Model = TypeVar("Model")

_WIDE = 200  # columns where nobody looks: what is piped on must not be cut
_LONGEST = 300  # characters of a value that are shown
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
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
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
    # What is not ASCII stands in strings only, where JSON has an escape for it.
    sys.stdout.write(text if _can_show(text) else _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], nothing: str, *, whole: str | None = None
) -> None:
    """A table, or what to say where there is nothing to show.

    Args:
        columns: Their names.
        rows: A cell a column.
        nothing: Said where there are no rows.
        whole: A column that is not wrapped, as long as it leaves half of the width to the others: it is copied.
    """
    out = console()
    if not rows:
        out.print(Text(nothing, style="dim"))
        return
    cells = [[cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row] for row in rows]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name, column in zip(columns, zip(*cells, strict=True), strict=True):
        fits = name == whole and max(cell.cell_len for cell in column) <= out.width // 2
        table.add_column(name, overflow="fold", no_wrap=fits)
    for row in cells:
        table.add_row(*row)
    out.print(table)


def shown(sign: str, instead: str) -> str:
    """The sign, or what stands for it where standard output cannot show it."""
    return sign if _can_show(sign) else instead


def hidden(model: Model, *, reveal: bool) -> Model:
    """The model with the values of `DEFAULT_FIELDS` hidden, at any depth, unless they shall be revealed."""
    return model if reveal else msgspec.convert(Redaction().of_model(model), type(model))


def short_json(value: object) -> str:
    """A value as JSON on one line, cut where it is long."""
    text = plain(msgspec.json.encode(value).decode())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + shown("…", "...")


def status(value: OperationStatus | None) -> Text:
    """The status of a saga or a step in its colour."""
    if value is None:
        return Text("")
    return Text(str(value).replace("_", " "), style=_COLOURS[value])


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


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
