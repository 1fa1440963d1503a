"""Expressions in a step's parameters: references to earlier results, and literals that hold no expression.

An object with the single key ``$ref`` is a reference, ``{"$ref": "steps.<name>.result.<field>"}``. The value that a
reference names replaces the reference just before the handler is invoked. An object with the single key ``$literal``
stands for its value as it is: nothing in a literal is an expression. All else is data. An object that holds one of the
two keys beside others is refused, since data and a mistyped expression look the same there.

Parameters are expanded once: a result that contains ``{"$ref": …}`` is data. The step that a reference names is checked
when the saga is created; the field can be checked only when the result exists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from ..errors import InvalidInput
from ..jsonvalue import check_json, copy_json, decode, encode

REF, LITERAL = "$ref", "$literal"
EXPRESSION_MARK = b'"$'
"""Is found in every JSON text that holds an expression."""

_PREFIX = "steps."
_RESULT = ".result"
_INDEX = re.compile("[0-9]{1,9}")
_CONTAINERS = (dict, list)
REMEDY = 'pass data that holds such a key as literal(value), which is {"$literal": value} in JSON'

_members_of: Callable[[Raw], dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw]).decode
_items_of: Callable[[Raw], list[Raw]] = msgspec.json.Decoder(list[Raw]).decode
_OBJECT, _LIST = b"{["
ResultOf = Callable[[str], Raw]
"""Gives the JSON of a step's result by the step's name; raises KeyError where the step has none."""


class Reference:
    """A parsed reference: the step's name and the path into its result."""

    __slots__ = ("path", "step", "text")

    def __init__(self, text: str, field: str) -> None:
        head, found, rest = text.removeprefix(_PREFIX).partition(_RESULT)
        if not (text.startswith(_PREFIX) and found and head and (not rest or rest.startswith("."))):
            form = "steps.<name>.result.<field>"
            raise InvalidInput(field, f"the $ref {text!r:.200} is not of the form {form!r}; {REMEDY}")
        self.text = text
        self.step = head
        self.path = rest[1:].split(".") if rest else []


def ref(path: str) -> dict[str, Any]:
    """A reference to an earlier step's result, for use inside a step's parameters.

    Args:
        path: ``steps.<name>.result.<field>``; without a field, the whole result.

    Raises:
        InvalidInput: The path is not of this form.
    """
    if not isinstance(path, str):
        raise InvalidInput("path", f"must be a string, not {type(path).__name__}")
    Reference(path, "path")
    return {REF: path}


def literal(value: Any) -> dict[str, Any]:
    """A value that the handler receives as it is: nothing in it is a reference.

    Wrap each JSON value that comes from outside of the program. The value is copied.

    Raises:
        InvalidInput: The value is no JSON.
    """
    check_json(value, "value")
    return {LITERAL: copy_json(value)}


def find_references(value: Any, field: str) -> Iterator[tuple[str, Reference]]:
    """All references inside a JSON value, each with its path.

    Raises:
        InvalidInput: A reference or a literal is malformed.
    """
    if isinstance(value, dict):
        if REF in value:
            yield field, _parse(value, field)
            return
        if LITERAL in value:
            _check_literal(value, field)
            return
        for key, item in value.items():
            if type(item) in _CONTAINERS:
                yield from find_references(item, f"{field}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if type(item) in _CONTAINERS:
                yield from find_references(item, f"{field}[{index}]")


def resolve(value: Any, result_of: ResultOf, *, limit: float = math.inf, field: str = "parameters") -> Any:
    """A deep copy of `value` with every expression replaced by its value.

    Each result is read once, however many references point into it, and only the parts that are named are decoded.

    Args:
        value: JSON that may hold expressions.
        result_of: Gives results. A reference to a step without one (the step is undone without having returned)
            becomes null.
        limit: Bytes of JSON that `value` may have once its references are replaced. Without references, the value has
            been measured when it was stored.
        field: Path of `value`, for errors.

    Raises:
        InvalidInput: A reference names a field that the result does not have, or the limit is exceeded.
    """
    expansion = _Expansion(result_of, limit)
    resolved = expansion.copy(value, field)
    if expansion.bytes:
        expansion.check(len(encode(resolved)), field)
    return resolved


class _Expansion:
    """One pass over one value.

    Attributes:
        bytes: JSON of the results, or parts of results, that were inserted.
    """

    def __init__(self, result_of: ResultOf, limit: float) -> None:
        self._result_of = result_of
        self._limit = limit
        self._results: dict[str, Raw] = {}
        self._opened: dict[tuple[str, ...], dict[str, Raw] | list[Raw] | None] = {}
        self.bytes = 0

    def copy(self, value: Any, field: str) -> Any:
        if isinstance(value, dict):
            if REF in value:
                return self._follow(_parse(value, field), field)
            if LITERAL in value:
                _check_literal(value, field)
                return copy_json(value[LITERAL])
            return {
                key: self.copy(item, f"{field}.{key}") if type(item) in _CONTAINERS else item
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [
                self.copy(item, f"{field}[{index}]") if type(item) in _CONTAINERS else item
                for index, item in enumerate(value)
            ]
        return value

    def check(self, size: int, field: str) -> None:
        if size > self._limit:
            raise InvalidInput(
                field,
                f"the results that references insert here have {self.bytes} bytes of JSON, which makes {size} in all; "
                f"at most {self._limit} can be passed to a handler",
            )

    def _follow(self, reference: Reference, field: str) -> Any:
        try:
            part = self._result(reference.step)
        except KeyError:
            return None
        where: tuple[str, ...] = (reference.step,)
        for name in reference.path:
            parent, where = self._members(where, part), (*where, name)
            if isinstance(parent, dict) and name in parent:
                part = parent[name]
            elif isinstance(parent, list) and _INDEX.fullmatch(name) and int(name) < len(parent):
                part = parent[int(name)]
            else:
                missing = f"the result of step {reference.step!r} has no {name!r}"
                raise InvalidInput(field, f"{missing} (in {reference.text!r})")
        self.bytes += len(part)
        self.check(self.bytes, field)
        return decode(part)

    def _result(self, step: str) -> Raw:
        if step not in self._results:
            self._results[step] = self._result_of(step)
        return self._results[step]

    def _members(self, where: tuple[str, ...], part: Raw) -> dict[str, Raw] | list[Raw] | None:
        """The members of an object or a list, each still as JSON; None for anything else."""
        if where not in self._opened:
            start = memoryview(part)[0]
            members: dict[str, Raw] | list[Raw] | None = None
            if start == _OBJECT:
                members = _members_of(part)
            elif start == _LIST:
                members = _items_of(part)
            self._opened[where] = members
        return self._opened[where]


def _parse(value: dict[str, Any], field: str) -> Reference:
    text = value[REF]
    if len(value) != 1 or not isinstance(text, str):
        raise InvalidInput(field, f"a $ref stands alone in its object and is a string; {REMEDY}")
    return Reference(text, field)


def _check_literal(value: dict[str, Any], field: str) -> None:
    if len(value) != 1:
        raise InvalidInput(field, f"a $literal stands alone in its object; {REMEDY}")
