"""What may be stored: JSON values and nothing else, checked where they enter, with the path of what is refused.

msgspec would quietly turn dates, sets, bytes and dataclasses into JSON, and a handler would see one type before
a restart and another after it. So the edge is stricter than the codec for what comes in before any work is done.
A result comes after the work: refusing it then would undo an operation that succeeded, so `result_json` stores
every type that has one JSON form.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from .errors import InvalidInput

_MAX_DEPTH = 100
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1  # the range msgspec carries without loss
_SCALARS = frozenset({str, bool, int, float, type(None)})
_ARRAYS = frozenset({list, tuple, set, frozenset})


def as_base(value: Any) -> Any:
    """For a codec: a string or number of a class derived from these (numpy's, markupsafe's) counts as what it is.

    Raises:
        TypeError: It is neither.
    """
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    raise TypeError(f"a value of type {type(value).__qualname__} is not JSON")


encode = msgspec.json.Encoder(enc_hook=as_base).encode
decode = msgspec.json.Decoder().decode


def check_json(value: Any, field: str) -> None:
    """Refuse what is not a JSON value.

    Raises:
        InvalidInput: Naming the path of the first value that is not JSON.
    """
    _check(value, field, 0)


def result_json(value: Any, limit: float = math.inf, field: str = "result") -> bytes:
    """The JSON of a result.

    Types with one JSON form are stored in it: UUID and Decimal as text, dates and times as in RFC 3339, enums as their
    value, tuples and sets as lists, bytes as base64, dataclasses, msgspec structs and pydantic models as objects.

    Args:
        value: What a handler returned.
        limit: Bytes of JSON that can be stored.
        field: For the error.

    Raises:
        InvalidInput: The value, or a part of it, has no JSON form; or it is too large.
    """
    try:
        try:
            check_json(value, field)
        except InvalidInput:
            value = _converted(value, field, 0)
            check_json(value, field)
        data = encode(value)
    except InvalidInput:
        raise
    except Exception as error:  # of the value's own class, which can fail at anything that is asked of it
        raise InvalidInput(field, f"cannot be read: {type(error).__name__}") from error
    if len(data) > limit:
        raise InvalidInput(field, f"has {len(data)} bytes of JSON; at most {limit} can be stored")
    return data


def copy_json(value: Any) -> Any:
    """A deep copy of a JSON value, so that what a handler does to its own stays its own."""
    if isinstance(value, dict):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_json(item) for item in value]
    return value


def _check(value: Any, path: str, depth: int) -> None:
    kind = type(value)
    if kind in _SCALARS:
        problem = _scalar_problem(value)
        if problem:
            raise InvalidInput(path, problem)
        return
    if depth >= _MAX_DEPTH:
        raise InvalidInput(path, f"nested deeper than {_MAX_DEPTH} levels, or it contains itself")
    if kind is dict:
        _check_object(value, path, depth)
    elif kind is list:
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]", depth + 1)
    else:
        raise InvalidInput(
            path,
            f"a value of type {kind.__module__}.{kind.__qualname__} is not JSON; "
            "use str, int, float, bool, None, list or dict",
        )


def _converted(value: Any, path: str, depth: int) -> Any:
    """The value with each part in its JSON form, as far as it has one."""
    kind = type(value)
    if depth > _MAX_DEPTH or kind in _SCALARS:
        return value
    if kind is dict:
        converted = {_key(key, path): _converted(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
        if len(converted) < len(value):
            raise InvalidInput(path, "two keys have the same JSON form, so one value would be lost; use string keys")
        return converted
    if kind in _ARRAYS:
        return [_converted(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    try:
        plain = msgspec.to_builtins(value, enc_hook=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(path, f"has no JSON form: {error}") from error
    return _converted(plain, path, depth + 1)


def _plain(value: Any) -> Any:
    """The JSON form of what msgspec has no form for: a model of pydantic, or what `as_base` takes."""
    dump = getattr(type(value), "model_dump", None)
    return as_base(value) if dump is None else dump(value, mode="json")


def _key(key: Any, path: str) -> Any:
    try:
        return key if type(key) is str else next(iter(msgspec.to_builtins({key: None}, str_keys=True)))
    except (TypeError, ValueError) as error:
        raise InvalidInput(path, f"the key {key!r:.80} has no JSON form: {error}") from error


def _scalar_problem(value: Any) -> str | None:
    if isinstance(value, str) and not is_text(value):
        return "the string holds half a surrogate pair, which is no character"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a JSON number; pass null or a string"
    if isinstance(value, int) and not _MIN_INT <= value <= _MAX_INT:
        return "the integer does not fit 64 bits; pass it as a string"
    return None


def _check_object(value: dict[Any, Any], path: str, depth: int) -> None:
    for key, item in value.items():
        if type(key) is not str or not (key.isascii() or is_text(key)):
            raise InvalidInput(path, f"the key {key!r:.80} is not a string of characters")
        # What most items are can be told without a call, and without making their path.
        kind = type(item)
        if kind is str:
            if item.isascii():
                continue
        elif kind is bool or item is None or (kind is int and _MIN_INT <= item <= _MAX_INT):
            continue
        _check(item, f"{path}.{key}", depth + 1)


def is_text(value: str) -> bool:
    """Whether UTF-8 can carry it: half a surrogate pair, as from `os.fsdecode`, it cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
