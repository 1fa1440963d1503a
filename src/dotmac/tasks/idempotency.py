"""How an idempotent operation gets its key, and how two requests under one key are told apart. Pure.

A key is the SHA-256 of a canonical JSON text, so equal requests get equal keys in every process. A key that the
caller chose is hashed together with the tenant: two tenants that chose the same one never meet. The fingerprint
covers what the key does not, so that one key used for two different requests is noticed.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from .bounds import check_encodable
from .errors import InvalidInput
from .jsonvalue import as_base, check_json

MAX_KEY_LENGTH = 255
_canonical = msgspec.json.Encoder(order="sorted", enc_hook=as_base).encode


def derive_key(tenant_id: str, user_id: str | None, operation_type: str, parameters: dict[str, Any] | None) -> str:
    """The key of a request that brought none: equal for equal tenant, user, operation and parameters."""
    return _digest(["derived", tenant_id, user_id, operation_type, parameters or {}])


def scope_key(tenant_id: str, key: str, field: str = "key") -> str:
    """The record's key for a key that the caller chose, kept apart by tenant. `field` names it in the error.

    Raises:
        InvalidInput: The key is empty or longer than 255 characters, or UTF-8 cannot carry it.
    """
    check_encodable(field, key)
    if not 0 < len(key) <= MAX_KEY_LENGTH:
        raise InvalidInput(field, f"must be a string of 1 to {MAX_KEY_LENGTH} characters")
    return _digest(["chosen", tenant_id, key])


def fingerprint(user_id: str | None, operation_type: str, parameters: Any) -> str:
    """What must be equal for two requests under one key to be the same request."""
    return _digest([user_id, operation_type, parameters])


def check_request(tenant_id: str, user_id: str | None, operation_type: str, parameters: Any) -> None:
    """Refuse a request whose parts could not be stored.

    Raises:
        InvalidInput: Naming the part.
    """
    check_name("tenant_id", tenant_id)
    if user_id is not None:
        check_name("user_id", user_id)
    check_name("operation_type", operation_type)
    if parameters is not None and type(parameters) is not dict:
        raise InvalidInput("parameters", "must be a dict of JSON values, or None")
    check_json(parameters, "parameters")


def check_name(field: str, value: Any) -> None:
    """Refuse what cannot be a tenant, user, operation, workflow or step name.

    Raises:
        InvalidInput: It is not a string of 1 to 255 printable characters.
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_KEY_LENGTH or not value.isprintable():
        raise InvalidInput(field, f"must be a string of 1 to {MAX_KEY_LENGTH} printable characters, not {value!r:.80}")


def _digest(parts: list[Any]) -> str:
    return sha256(_canonical(parts)).hexdigest()
