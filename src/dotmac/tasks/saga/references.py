"""References from a step's parameters to an earlier step's result: ``{"$ref": "steps.<name>.result.<field>"}``.

A reference is an object with the single key ``$ref``. It is replaced by the value it names just before the
handler is invoked. Which step it names is checked when the saga is created; whether the field exists can only
be known when the result is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import InvalidInput
from ..jsonvalue import copy_json

_KEY = "$ref"
REFERENCE_MARK = b'"$ref"'
"""Is found in every JSON text that holds a reference."""

_PREFIX = "steps."
_RESULT = ".result"
_INDEX = re.compile("[0-9]{1,9}")
_CONTAINERS = (dict, list)


class Reference:
    """A parsed reference: the step's name and the path into its result."""

    __slots__ = ("path", "step", "text")

    def __init__(self, text: str, field: str) -> None:
        head, found, rest = text.removeprefix(_PREFIX).partition(_RESULT)
        if not (text.startswith(_PREFIX) and found and head and (not rest or rest.startswith("."))):
            raise InvalidInput(field, f"the $ref {text!r} is not of the form 'steps.<name>.result.<field>'")
        self.text = text
        self.step = head
        self.path = rest[1:].split(".") if rest else []


def find_references(value: Any, field: str) -> Iterator[tuple[str, Reference]]:
    """All references inside a JSON value, each with the path where it stands.

    Raises:
        InvalidInput: A ``$ref`` is malformed.
    """
    if isinstance(value, dict):
        if _KEY in value:
            yield field, _parse(value, field)
            return
        for key, item in value.items():
            if type(item) in _CONTAINERS:
                yield from find_references(item, f"{field}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from find_references(item, f"{field}[{index}]")


def resolve(value: Any, result_of: Callable[[str], Any], field: str = "parameters") -> Any:
    """A deep copy of `value` in which every reference is replaced by what it names.

    Args:
        value: JSON that may hold references.
        result_of: Gives a step's result by name, or raises KeyError: a step that is being undone without having
            returned has no result, and a reference to it becomes null.
        field: Path of `value`, for errors.

    Raises:
        InvalidInput: A reference names a field that the result does not have.
    """
    if isinstance(value, dict):
        if _KEY in value:
            return _follow(_parse(value, field), result_of, field)
        return {
            key: resolve(item, result_of, f"{field}.{key}") if type(item) in _CONTAINERS else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [resolve(item, result_of, f"{field}[{index}]") for index, item in enumerate(value)]
    return value


def _parse(value: dict[str, Any], field: str) -> Reference:
    text = value[_KEY]
    if len(value) != 1 or not isinstance(text, str):
        raise InvalidInput(field, "a $ref stands alone in its object and is a string")
    return Reference(text, field)


def _follow(reference: Reference, result_of: Callable[[str], Any], field: str) -> Any:
    try:
        result = result_of(reference.step)
    except KeyError:
        return None
    for part in reference.path:
        if isinstance(result, dict) and part in result:
            result = result[part]
        elif isinstance(result, list) and _INDEX.fullmatch(part) and int(part) < len(result):
            result = result[int(part)]
        else:
            raise InvalidInput(field, f"the result of step {reference.step!r} has no {part!r} (in {reference.text!r})")
    return copy_json(result)
