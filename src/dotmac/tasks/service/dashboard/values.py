"""Values of a saga on its page: without secrets, and not more than a process can render while it renews its leases."""

from __future__ import annotations

from typing import Any

from ...jsonvalue import encode
from ..redaction import Redaction

LARGEST_VALUE = 65_536
"""Bytes of JSON of the largest value that a page shows."""
_MOST_VALUES = 1_048_576  # bytes of JSON of all values of a page


class Values:
    """The values of one page.

    Args:
        redaction: Hides secrets.
    """

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._left = _MOST_VALUES

    def shown(self, value: Any) -> Any:
        """The value without its secrets; the size of a value that is too large for the page."""
        size = len(encode(value))
        if size > min(LARGEST_VALUE, self._left):
            return f"{size:,} bytes of JSON, too many for this page; the HTTP API and the command sagas show have them"
        self._left -= size
        return self._redaction(value)
