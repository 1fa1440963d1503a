"""Hides values that people who look at a saga must not see: by the names of the fields that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

HIDDEN = "••••••"
"""What stands for a value that is hidden."""

DEFAULT_FIELDS = (
    "password", "passwd", "passphrase", "secret", "token", "authorization", "api_key", "private_key", "credential",
    "cookie", "session_id", "card", "cvv", "cvc", "iban", "ssn",
)  # fmt: skip
"""Fields whose values are hidden unless others are configured."""

_REFERENCE = "$ref"


class Redaction:
    """Copies JSON with the values of some fields hidden, at any depth.

    A field is hidden if its name contains one of the words, whatever its case, underscores and hyphens: ``token``
    hides ``access_token`` and ``X-Auth-Token``. Rather too much is hidden than too little.

    Args:
        fields: The words.
    """

    def __init__(self, fields: Iterable[str] = DEFAULT_FIELDS) -> None:
        self._words = tuple(word for word in map(_plain, fields) if word)

    def __call__(self, value: Any) -> Any:
        """The copy. References to other steps' results stay: they are names, not values."""
        if isinstance(value, dict):
            return {key: self._field(key, item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        return value

    def _field(self, name: Any, value: Any) -> Any:
        hides = any(word in _plain(str(name)) for word in self._words)
        if not hides or value is None or (isinstance(value, dict) and value.keys() == {_REFERENCE}):
            return self(value)
        return HIDDEN


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
