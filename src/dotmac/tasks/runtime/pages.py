"""How long a page of a list may be."""

from __future__ import annotations

from ..errors import InvalidInput

MAX_PAGE = 1000


def check_limit(limit: int) -> None:
    """Refuse a page that would be too long. Raises InvalidInput."""
    if not 0 < limit <= MAX_PAGE:
        raise InvalidInput("limit", f"must lie between 1 and {MAX_PAGE}, not {limit}")
