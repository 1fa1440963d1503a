"""Reading requests: query parameters and bodies, refused with the name of what is wrong."""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TypeVar

from starlette.requests import Request

from ...errors import InvalidInput
from ..reading import read_body
from .bodies import parse_body

T = TypeVar("T")
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
_JSON = "application/json"


class Query:
    """The query parameters of one request.

    Args:
        request: The request.
        known: What may be given; a misspelt filter must not look like one that matches everything.

    Raises:
        InvalidInput: A parameter is unknown, or given twice.
    """

    def __init__(self, request: Request, known: Collection[str]) -> None:
        self._values = dict(request.query_params)
        given: set[str] = set()
        for name, _ in request.query_params.multi_items():
            if name not in known:
                allowed = f"there are: {', '.join(known)}" if known else "there are none here"
                raise InvalidInput(name, f"there is no such query parameter; {allowed}")
            if name in given:
                raise InvalidInput(name, "must be given once")
            given.add(name)

    def text(self, name: str) -> str | None:
        """The parameter, or None."""
        value = self._values.get(name)
        if value == "":
            raise InvalidInput(name, "is empty; leave it out to match everything")
        return value

    def flag(self, name: str) -> bool:
        """A parameter that is true or false; false if it is not given."""
        value = self._values.get(name, "false").lower()
        if value not in _TRUE | _FALSE:
            raise InvalidInput(name, "must be true or false")
        return value in _TRUE

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 to `most`."""
        text = self._values.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit()) or not 1 <= (number := int(text[:20])) <= most:
            raise InvalidInput(name, f"must be a whole number from 1 to {most}")
        return number

    def time(self, name: str) -> datetime | None:
        """A point in time: RFC 3339 with its offset from UTC, or Unix seconds."""
        text = self.text(name)
        if text is None:
            return None
        try:
            if text.replace(".", "", 1).isdecimal() and math.isfinite(seconds := float(text)):
                return datetime.fromtimestamp(seconds, UTC)
            at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus sign that nobody encoded arrives as a blank
        except (ValueError, OverflowError, OSError) as error:
            raise InvalidInput(name, f"{text[:40]!r} is no time; right would be 2026-01-31T12:00:00Z") from error
        if at.tzinfo is None:
            raise InvalidInput(name, "needs its offset from UTC, such as 2026-01-31T12:00:00Z")
        return at


async def read_json(request: Request, kind: type[T], most: int, *, optional: bool = False) -> T:
    """The body as JSON of this type.

    Args:
        request: The request.
        kind: A struct.
        most: Bytes the body may have.
        optional: Whether an empty body stands for ``{}``.

    Raises:
        InvalidInput: It is too large, no JSON, or not of this type; naming the field.
    """
    if (media := request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()) != _JSON:
        raise InvalidInput("Content-Type", f"must be {_JSON}, not {media[:80]!r}")
    body = await read_body(request, most)
    return parse_body(b"{}" if optional and not body.strip() else body, kind)
