"""Patterns of paths: ``/payments/*``, ``/files/**``, ``POST /orders/{order_id}/pay``. Pure."""

from __future__ import annotations

import re

from ..errors import InvalidInput

_METHOD_AND_PATH = re.compile(r"(?:([A-Za-z]+) +)?(/\S*)")
_WILDCARD = re.compile(r"\*|\{\w+(?::(?!path\})\w+)?\}")
_TAIL = re.compile(r"\*\*|\{\w+:path\}")


def compile_pattern(pattern: str) -> tuple[str | None, re.Pattern[str]]:
    """The method that a pattern is limited to, and the expression that whole paths have to match.

    Raises:
        InvalidInput: It is no pattern.
    """
    found = _METHOD_AND_PATH.fullmatch(pattern) if isinstance(pattern, str) else None
    if found is None:
        raise InvalidInput(
            "pattern", f"must be a path that begins with /, such as '/payments/*' or 'PUT /files/**', not {pattern!r}"
        )
    method = found[1].upper() if found[1] else None
    return method, re.compile("".join(map(_segment, found[2].split("/")[1:])), re.DOTALL)


def _segment(segment: str) -> str:
    if _TAIL.fullmatch(segment):
        return "(?:/[^/]*)*"
    if "**" in segment:
        raise InvalidInput("pattern", f"** must stand for whole segments, not for a part of {segment!r}")
    literals = map(re.escape, _WILDCARD.split(segment))
    return "/" + "[^/]*".join(literals)
