"""Hides values by the names of the fields that hold them: on pages, in terminals, and from view-only callers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

HIDDEN = "••••••"
"""What stands for a value that is hidden."""

DEFAULT_FIELDS = (
    "password", "passwd", "passphrase", "secret", "token", "authorization", "api_key", "private_key", "credential",
    "cookie", "session_id", "card", "cvv", "cvc", "iban", "ssn",
)  # fmt: skip
"""Fields whose values are hidden unless others are configured."""

_REFERENCE, _LITERAL = "$ref", "$literal"
_STORED_RESPONSE = frozenset({"v", "status", "headers", "base64"})  # of the HTTP middleware, its body encoded
_PAIR = 2
_NAMES_KEPT = 1024


class Redaction:
    """Copies JSON with the values of some fields hidden, at any depth.

    A field is hidden if its name contains one of the words, whatever its case, underscores and hyphens: ``token``
    hides ``access_token`` and ``X-Auth-Token``. Rather too much is hidden than too little. A text that is a JSON
    object or array is redacted as JSON, and a pair of a name and a text as a field (both are parts of a stored HTTP
    response).

    Args:
        fields: The words.
    """

    def __init__(self, fields: Iterable[str] = DEFAULT_FIELDS) -> None:
        words = tuple(word for word in map(_plain, fields) if word)
        # A document has the same few names again and again.
        self._hides = lru_cache(_NAMES_KEPT)(lambda name: any(word in _plain(name) for word in words))

    def __call__(self, value: Any) -> Any:
        """The copy. References to other steps' results stay, except in literals, which hold values only."""
        return self._copy(value, literal=False)

    def _copy(self, value: Any, *, literal: bool) -> Any:
        if isinstance(value, dict):
            literal = literal or value.keys() == {_LITERAL}
            copy = {key: self._field(key, item, literal=literal) for key, item in value.items()}
            return copy | {"base64": HIDDEN} if value.keys() >= _STORED_RESPONSE else copy
        if isinstance(value, list | tuple):
            if len(value) == _PAIR and all(isinstance(item, str) for item in value) and self._hides(value[0]):
                return [value[0], HIDDEN]
            return [self._copy(item, literal=literal) for item in value]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        if not text.lstrip().startswith(("{", "[")):
            return text
        try:
            document = msgspec.json.decode(text)
            copy = self._copy(document, literal=True)
        except RecursionError:
            return HIDDEN
        except ValueError:  # it is no JSON
            return text
        return text if copy == document else msgspec.json.encode(copy).decode()

    def of_model(self, model: Any) -> Any:
        """The same of a dataclass or struct, as the JSON that it is sent as."""
        return self(msgspec.to_builtins(model))

    def _field(self, name: Any, value: Any, *, literal: bool) -> Any:
        if not self._hides(str(name)) or value is None or (not literal and _is_reference(value)):
            return self._copy(value, literal=literal)
        return HIDDEN


def _is_reference(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {_REFERENCE}:
        return False
    return isinstance(value[_REFERENCE], str) and value[_REFERENCE].startswith("steps.")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
