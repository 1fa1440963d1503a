"""One look at a saga serves all event streams of it: the cost of a saga's streams does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from ...manager import BackgroundOperationsManager
from ...models import OperationStatus, SagaHistoryEntry


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found.

    Attributes:
        status: Of the saga; older than the history.
        history: All entries, oldest first.
    """

    status: OperationStatus
    history: list[SagaHistoryEntry]


@dataclass(slots=True)
class _Watched:
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
        self._watched: dict[str, _Watched] = {}
        self._streams = 0

    @property
    def is_full(self) -> bool:
        """Whether there are as many streams as may be."""
        return self._streams >= self._most

    @contextmanager
    def watching(self, saga_id: str) -> Iterator[None]:
        """Share looks at the saga while inside."""
        watched = self._watched.setdefault(saga_id, _Watched())
        watched.streams += 1
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
            watched.streams -= 1
            if not watched.streams:
                del self._watched[saga_id]

    async def look(self, saga_id: str, max_age: float) -> Look:
        """The status and the history of a saga that is watched.

        Args:
            saga_id: The saga.
            max_age: Seconds that a look of another stream may be old.

        Raises:
            SagaNotFound: There is no such saga.
        """
        watched = self._watched[saga_id]
        oldest = trio.current_time() - max_age
        async with watched.looking:
            if watched.look is None or watched.looked_at < oldest:
                looked_at = trio.current_time()
                # In this order: what the history does not have yet cannot have ended the saga.
                status = await self._manager.saga_handle(saga_id).status()
                watched.look = Look(status, await self._manager.get_saga_history(saga_id))
                watched.looked_at = looked_at
            return watched.look
