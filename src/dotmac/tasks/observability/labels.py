"""Label values that cannot grow without bound: the first few distinct ones keep their name, the rest share one.

Each distinct value of a label is a time series of its own for as long as the process runs, and names of workflows
and tenants are chosen by callers.
"""

from __future__ import annotations

OTHER = "other"


class BoundedLabel:
    """The values of one label.

    Args:
        limit: How many distinct values keep their name.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value, or ``other`` once there are too many of them."""
        if value in self._known:
            return value
        if len(self._known) >= self._limit:
            return OTHER
        self._known.add(value)
        return value
