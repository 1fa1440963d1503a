"""How long a lock may be held or waited for by one request."""

from __future__ import annotations

from typing import Any

from ..bounds import MAX_SECONDS
from ..errors import InvalidInput

SHORTEST_TTL, LONGEST_TTL = 0.05, 86_400.0


def check_ttl(ttl: Any, field: str = "ttl") -> None:
    """Refuse what cannot be a lease. Raises InvalidInput."""
    if not _is_number(ttl) or not SHORTEST_TTL <= ttl <= LONGEST_TTL:
        raise InvalidInput(field, f"must be {SHORTEST_TTL} to {LONGEST_TTL:.0f} seconds, not {ttl!r:.80}")


def check_wait(wait: Any) -> None:
    """Refuse what cannot be waited for. Raises InvalidInput."""
    if wait is not None and (not _is_number(wait) or not 0 <= wait <= MAX_SECONDS):
        allowed = f"must be a number of seconds from 0 to {MAX_SECONDS:.0e}, or None (as long as it takes)"
        raise InvalidInput("wait", f"{allowed}, not {wait!r:.80}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
