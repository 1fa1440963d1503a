"""What no number of seconds and no text may exceed. Pure."""

from __future__ import annotations

from typing import Any

from .errors import InvalidInput
from .jsonvalue import is_text

MAX_SECONDS = 1e9
"""Some thirty years. A time much further off would be no date any more, and not finite is no number in a journal."""

MIN_TTL = 0.001
"""Redis counts the life of a key in milliseconds."""

MAX_REASON = 2000
"""Characters. The service takes 500 from people, and puts their names in front."""


def check_encodable(field: str, value: Any) -> None:
    """Refuse what no storage can have as a key.

    Raises:
        InvalidInput: It is no string, or not one that UTF-8 can carry.
    """
    if not isinstance(value, str):
        raise InvalidInput(field, f"must be a string, not {type(value).__name__}")
    if not is_text(value):
        raise InvalidInput(field, "holds half a surrogate pair, which is no character")


def check_texts(**texts: Any) -> None:
    """As `check_encodable`, for several by their names, of which each may be None."""
    for field, text in texts.items():
        if text is not None:
            check_encodable(field, text)


def check_reason(value: Any) -> None:
    """Refuse what cannot be journaled as the reason for what an operator does.

    Raises:
        InvalidInput: It is no string, too long, or not one that UTF-8 can carry.
    """
    check_encodable("reason", value)
    if len(value) > MAX_REASON:
        raise InvalidInput("reason", f"must have at most {MAX_REASON} characters, not {len(value)}")


def check_record_ttl(field: str, value: Any) -> None:
    """Refuse what is no time for which a record can be kept.

    Raises:
        InvalidInput: It is no number of seconds, or one that a server cannot keep.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_TTL <= value <= MAX_SECONDS:
        raise InvalidInput(field, f"must be {MIN_TTL:g} to {MAX_SECONDS:.0e} seconds, not {value!r:.80}")
