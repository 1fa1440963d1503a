"""How long to wait before connecting again."""

from __future__ import annotations

import random

_FIRST_DELAY = 0.02
_LONGEST_DELAY = 0.5


def backoff(attempt: int) -> float:
    """Returns seconds to wait after the failed try number `attempt` (from 0): doubling, capped, half of it random."""
    ceiling: float = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(attempt, 10))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - spreads clients in time, protects nothing
