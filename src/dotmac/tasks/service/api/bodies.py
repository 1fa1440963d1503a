"""From the bytes of a request, or of a file, to a struct, or to an error that names the field."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ...errors import InvalidInput
from ...jsonvalue import check_json
from .documents import SagaInput

T = TypeVar("T")


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
    check_json(plain, "body")
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        raise InvalidInput(path.rstrip("`").lstrip(".") or "body", reason[0].lower() + reason[1:]) from error


def saga_fields(given: SagaInput) -> dict[str, Any]:
    """What `start_saga` takes."""
    return {name: getattr(given, name) for name in SagaInput.__struct_fields__}
