"""One text for each meaning: JSON documents that say the same become the same bytes. Pure.

Order of members, white space, escapes and the spelling of numbers do not matter: ``1``, ``1.0`` and ``10e-1`` are one
number, compared digit by digit and not as floats, so that no two numbers fall together. Text is compared as it is,
without Unicode normalisation. What has no single meaning has no canonical form: duplicate members, NaN, nesting
deeper than 100 levels, and what is no JSON at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

MAX_DEPTH = 100
_EXPONENT_DIGITS = 20
_quoted = json.encoder.encode_basestring_ascii
_Path = tuple[str, ...]


class NotCanonical(ValueError):
    """The text is no JSON, or JSON with more than one meaning. It has to be compared as it is."""


class _Number(str):
    """A number, spelled in the one canonical way."""

    __slots__ = ()


def canonical_json(text: bytes, *, chosen: Sequence[str] = (), ignored: Sequence[str] = ()) -> bytes:
    """The canonical form of a JSON text, which is JSON too.

    Args:
        text: UTF-8, as RFC 8259 has it; a byte order mark does not matter.
        chosen: Dotted paths of the members that are looked at; none: all. A path goes through arrays. Where no such
            member is there, all are looked at: two bodies are not the same because both lack something.
        ignored: Dotted paths of the members that are not.

    Raises:
        NotCanonical: Compare the text itself.
    """
    value = _parsed(text)
    if chosen:
        projected = _only(value, [tuple(path.split(".")) for path in chosen])
        value = value if projected is _NOTHING else projected
    if ignored:
        value = _without(value, [tuple(path.split(".")) for path in ignored])
    return _written(value).encode("ascii")


def _parsed(text: bytes) -> Any:
    try:
        value = json.loads(
            text.decode("utf-8-sig"),
            object_pairs_hook=_members,
            parse_constant=_refused,
            parse_float=_number,
            parse_int=_number,
        )
    except RecursionError as error:
        raise NotCanonical("nested too deeply") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotCanonical("no JSON") from error
    if _is_deeper(value, MAX_DEPTH):
        raise NotCanonical("nested too deeply")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotCanonical("duplicate members")
    return members


def _refused(constant: str) -> Any:
    raise NotCanonical(f"{constant} is no JSON number")


def _number(text: str) -> _Number:
    """Digits without zeros around them, and a power of ten."""
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent) > _EXPONENT_DIGITS:
        raise NotCanonical("the exponent of a number is out of all reason")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return _Number("0")
    stripped = digits.rstrip("0")
    power = int(exponent or "0") - len(fraction) + len(digits) - len(stripped)
    return _Number(f"{'-' if mantissa.startswith('-') else ''}{stripped}e{power}")


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether containers are nested deeper; walks level by level, so that no depth is too much for it."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [item for container in layer for item in _items(container)]
        if not layer:
            return False
    return True


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()


_NOTHING = object()


def _only(value: Any, paths: list[_Path]) -> Any:
    """The part of a value that lies on the paths; `_NOTHING` where there is none."""
    if () in paths:
        return value
    if isinstance(value, list):
        items = [_only(item, paths) for item in value]
        found = [item for item in items if item is not _NOTHING]
        return [{} if item is _NOTHING else item for item in items] if found else _NOTHING
    if not isinstance(value, dict):
        return _NOTHING
    kept = {name: _only(item, _below(name, paths)) for name, item in value.items()}
    kept = {name: item for name, item in kept.items() if item is not _NOTHING}
    return kept or _NOTHING


def _without(value: Any, paths: list[_Path]) -> Any:
    if isinstance(value, list):
        return [_without(item, paths) for item in value]
    if not isinstance(value, dict) or not paths:
        return value
    below = {name: _below(name, paths) for name in value}
    return {name: _without(item, below[name]) for name, item in value.items() if () not in below[name]}


def _below(name: str, paths: list[_Path]) -> list[_Path]:
    return [path[1:] for path in paths if path[:1] == (name,)]


def _written(value: Any) -> str:
    if isinstance(value, _Number):
        return value
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(name)}:{_written(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value)
