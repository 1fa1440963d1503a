"""Patterns of paths: ``/payments/*``, ``/files/**``, ``POST /orders/{order_id}/pay``. Pure.

Patterns are matched against paths of unauthenticated requests, so matching must stay linear in the path whatever the
pattern. Regular expressions are not: two ``**``, or ``{name}-{version}.{ext}`` in one segment, backtrack polynomially.
A pattern is therefore cut at each ``**`` into runs of segments, and a segment at each ``*`` into literals. The first
run or literal is bound to the start, the last one to the end, and each of the others is taken at its first occurrence
behind the one before. No later occurrence can match more, so the search never goes back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InvalidInput

_METHOD_AND_PATH = re.compile(r"(?:([A-Za-z]+) +)?(/\S*)")
_WILDCARD = re.compile(r"\*|\{\w+(?::(?!path\})\w+)?\}")
_TAIL = re.compile(r"\*\*|\{\w+:path\}")
_Segment = tuple[str, ...]  # the literals between the wildcards; a single one: no wildcard


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern, ready to match.

    Attributes:
        method: The method the pattern is limited to, in capitals; None: any.
        runs: The segments between each ``**`` and the next; a single run: no ``**``.
    """

    method: str | None
    runs: tuple[tuple[_Segment, ...], ...]

    def matches(self, path: str) -> bool:
        """Whether the whole path matches. Steps: at most the path's length times the pattern's segments."""
        segments = path.split("/")
        if segments.pop(0):
            return False
        first, *between = self.runs
        if not between:
            return len(segments) == len(first) and _fits(first, segments, 0)
        last = between.pop()
        end = len(segments) - len(last)
        place = len(first)
        if place > end or not _fits(first, segments, 0) or not _fits(last, segments, end):
            return False
        for run in between:
            while place + len(run) <= end and not _fits(run, segments, place):
                place += 1
            place += len(run)
        return place <= end

    @property
    def literal_path(self) -> str:
        """The leading part of the pattern that has no wildcard: a path, or the empty text."""
        literal: list[str] = []
        for segment in self.runs[0]:
            if len(segment) > 1:
                break
            literal.append(f"/{segment[0]}")
        return "".join(literal)


def compile_pattern(pattern: str) -> PathPattern:
    """Read a pattern.

    Raises:
        InvalidInput: It is no pattern.
    """
    found = _METHOD_AND_PATH.fullmatch(pattern) if isinstance(pattern, str) else None
    if found is None:
        raise InvalidInput(
            "pattern", f"must be a path that begins with /, such as '/payments/*' or 'PUT /files/**', not {pattern!r}"
        )
    runs: list[list[_Segment]] = [[]]
    for segment in found[2].split("/")[1:]:
        if _TAIL.fullmatch(segment):
            runs.append([])
        elif "**" in segment:
            raise InvalidInput("pattern", f"** must stand for whole segments, not for a part of {segment!r}")
        else:
            runs[-1].append(tuple(_WILDCARD.split(segment)))
    return PathPattern(found[1].upper() if found[1] else None, tuple(map(tuple, runs)))


def _fits(run: Sequence[_Segment], segments: Sequence[str], place: int) -> bool:
    """Whether the segments from `place` on match the run, one by one."""
    return all(_segment_fits(literals, segments[place + offset]) for offset, literals in enumerate(run))


def _segment_fits(literals: _Segment, segment: str) -> bool:
    first = literals[0]
    if len(literals) == 1:
        return segment == first
    last = literals[-1]
    place, end = len(first), len(segment) - len(last)
    if place > end or not segment.startswith(first) or not segment.endswith(last):
        return False
    for literal in literals[1:-1]:
        found = segment.find(literal, place, end)
        if found < 0:
            return False
        place = found + len(literal)
    return True
