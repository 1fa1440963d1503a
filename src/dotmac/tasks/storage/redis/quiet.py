"""Which partitions were empty when last looked at, so that an idle runtime need not look at all of them again.

Only absence is remembered, never a thing that was found. What the caller allows for is that a thing came since and
nobody told; see `SagaStore.due_sagas`.
"""

from __future__ import annotations

import math

import trio

from .layout import Partition


class QuietPartitions:
    """When each partition was found empty, and until when it said that nothing is due."""

    def __init__(self) -> None:
        self._found: dict[Partition, tuple[float, float]] = {}

    def is_quiet(self, partition: Partition, max_age: float, now: float) -> bool:
        """Whether it was found empty in the last `max_age` seconds, and by itself still is at this storage's time."""
        looked_at, until = self._found.get(partition, (-math.inf, 0.0))
        return trio.current_time() < looked_at + max_age and now < until

    def note(self, partition: Partition, looked_at: float, until: float = math.inf) -> None:
        """It was empty at this moment of trio's clock, and by itself stays so until then (the storage's time)."""
        self._found[partition] = looked_at, until

    def forget(self, partition: Partition) -> None:
        """It is not empty."""
        self._found.pop(partition, None)

    def clear(self) -> None:
        """Forget everything: the next look is at another server, maybe, and by another clock."""
        self._found.clear()
