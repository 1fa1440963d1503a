"""Templates, and how values look in them. Everything is escaped unless a template says otherwise, and none does."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..._version import __version__
from ...models import OperationStatus

FOLDER = Path(__file__).parent
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0

TONES = {
    OperationStatus.PENDING: "info",
    OperationStatus.IN_PROGRESS: "running",
    OperationStatus.COMPLETED: "ok",
    OperationStatus.COMPENSATING: "warn",
    OperationStatus.COMPENSATED: "undone",
    OperationStatus.FAILED: "failed",
    OperationStatus.UNKNOWN: "lost",
}
"""How a status is coloured; its name is always written beside the colour."""


def make_environment() -> Environment:
    """The templates' environment."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        clock=clock, duration=duration, pretty=pretty, compact=compact, count=count, words=words, tone=tone
    )
    environment.globals.update(version=__version__)
    return environment


def clock(at: datetime) -> str:
    """A point in time for people, to the second, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str:
    """A span of time for people: as long as it is exact enough to be compared."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 or not seconds else f"{seconds * 1000:.2f} ms"  # noqa: PLR2004
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def compact(value: Any) -> str:
    """The same in one line."""
    return json.dumps(value, ensure_ascii=False)


def count(number: float) -> str:
    """A number with its thousands apart."""
    return f"{number:,}".replace(",", "\u202f")


def words(name: str) -> str:
    """A status for people."""
    return str(name).replace("_", " ")


def tone(status: str) -> str:
    """How a status is coloured."""
    return TONES[OperationStatus(status)]
