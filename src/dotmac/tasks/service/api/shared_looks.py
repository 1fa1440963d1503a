"""One look at a saga serves all event streams of the saga.

A look reads what is new since the look before: its cost grows neither with the streams nor with the history.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from ...manager import BackgroundOperationsManager
from ...models import OperationStatus, SagaHistoryEntry
from ...storage.history import SagaHistory


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found.

    Attributes:
        status: Of the saga, at the moment of its newest entry.
        history: All entries, oldest first.
    """

    status: OperationStatus
    history: list[SagaHistoryEntry]


@dataclass(slots=True)
class Watched:
    """A saga that streams follow."""

    history: SagaHistory
    streams: int = 0
    looked_at: float = -math.inf  # trio's clock, before the storage was asked
    look: Look | None = None
    looking: trio.Lock = field(default_factory=trio.Lock)


class SharedLooks:
    """The latest look at each saga that has streams.

    Args:
        manager: Whose sagas.
        most: Streams of sagas at a time.
    """

    def __init__(self, manager: BackgroundOperationsManager, most: int) -> None:
        self._manager = manager
        self._most = most
        self._watched: dict[str, Watched] = {}
        self._streams = 0

    @property
    def is_full(self) -> bool:
        """Whether there are as many streams as may be."""
        return self._streams >= self._most

    @contextmanager
    def watching(self, saga_id: str, known: Watched | None = None) -> Iterator[Watched]:
        """Share looks at the saga while inside.

        Args:
            saga_id: The saga.
            known: What an earlier context of the same stream gave: a look goes on from there.
        """
        watched = self._watched.setdefault(saga_id, known or Watched(SagaHistory(saga_id)))
        watched.streams += 1
        self._streams += 1
        try:
            yield watched
        finally:
            self._streams -= 1
            watched.streams -= 1
            if not watched.streams:
                del self._watched[saga_id]

    async def look(self, watched: Watched, max_age: float) -> Look:
        """The status and the history of a saga.

        Args:
            watched: What `watching` gave.
            max_age: Seconds that a look of another stream may be old.

        Raises:
            SagaNotFound: There is no such saga.
        """
        oldest = trio.current_time() - max_age
        async with watched.looking:
            if watched.look is None or watched.looked_at < oldest:
                looked_at = trio.current_time()
                status = await self._manager.extend_saga_history(watched.history)
                watched.look = Look(status, watched.history.entries)
                watched.looked_at = looked_at
            return watched.look
