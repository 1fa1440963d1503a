"""How long a page of a list may be, and where one may begin."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidInput
from ..storage.ids import is_saga_id

MAX_PAGE = 1000


def check_limit(limit: Any) -> None:
    """Refuse a page that would be too long, or of no length. Raises InvalidInput."""
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise InvalidInput("limit", f"must be a whole number, not {limit!r:.80}")
    if not 0 < limit <= MAX_PAGE:
        raise InvalidInput("limit", f"must lie between 1 and {MAX_PAGE}, not {limit}")


def check_saga_cursor(cursor: Any) -> None:
    """Refuse what no page of sagas gave; any text has a place among ids, so it would give some page.

    Raises:
        InvalidInput: It is no saga's id.
    """
    if cursor is not None and not is_saga_id(cursor):
        raise InvalidInput("cursor", f"is not one that a page of this list gave: {cursor!r:.80}")
