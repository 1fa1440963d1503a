"""From the bytes of a request, or of a file, to a struct, or to an error that names the field."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
import msgspec.structs

from ...errors import InvalidInput
from ...jsonvalue import check_json
from .documents import SagaInput

T = TypeVar("T")
_MISSING = re.compile(r"missing required field `(.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)


def parse_body(body: bytes, kind: type[T]) -> T:
    """JSON of this type.

    Raises:
        InvalidInput: It is no JSON, or not of this type; naming the field.
    """
    # In two steps: a value that JSON cannot carry exactly is found in the plain form, with its path.
    try:
        plain: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput("body", f"is no JSON: {error}") from error
    try:
        check_json(plain, "body")
    except InvalidInput as error:
        raise InvalidInput(error.field.removeprefix("body."), error.reason) from error
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise _as_invalid(error, kind) from error


def _as_invalid(error: msgspec.ValidationError, kind: type) -> InvalidInput:
    reason, _, path = str(error).partition(" - at `$")
    if missing := _MISSING.search(reason):
        return InvalidInput(missing[1], "is required")
    if unknown := _UNKNOWN.search(reason):
        allowed = ", ".join(field.name for field in msgspec.structs.fields(kind))
        return InvalidInput(unknown[1] or "body", f"there is no field {unknown[1]!r:.80}; there are: {allowed}")
    return InvalidInput(path.rstrip("`").lstrip(".") or "body", reason[0].lower() + reason[1:])


def saga_fields(given: SagaInput) -> dict[str, Any]:
    """What `start_saga` takes."""
    return {name: getattr(given, name) for name in SagaInput.__struct_fields__}
