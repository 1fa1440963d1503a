"""Live events over HTTP: of one saga, wherever it runs, and of everything that this process does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from ...manager import BackgroundOperationsManager
from ...models import OperationStatus, SagaHistoryEntry
from ..feed import Feed
from ..redaction import Redaction
from .query import Query
from .replies import as_seen_by
from .streams import Channel, EventStream

_LOOK_EVERY = 1.0  # seconds between two looks at a saga that may run in another process
_KEEP_ALIVE = 15.0
_COUNT_EVERY = 2.0
Wait = Callable[[float], Awaitable[None]]
Show = Callable[[SagaHistoryEntry], Any]
_OVER = frozenset({OperationStatus.COMPLETED, OperationStatus.COMPENSATED})


class Events:
    """Handlers of the event streams.

    Args:
        manager: Whose sagas.
        feed: What happens in this process.
        closing: Set when the service stops.
        redaction: Hides values from callers who may only view.
    """

    def __init__(
        self, manager: BackgroundOperationsManager, feed: Feed, closing: trio.Event, redaction: Redaction
    ) -> None:
        self._manager = manager
        self._feed = feed
        self._closing = closing
        self._redaction = redaction

    async def of_saga(self, request: Request) -> Response:
        """The saga's history, entry by entry, then each new one; it ends with the saga, but not when it is parked."""
        Query(request, ())
        saga_id: str = request.path_params["saga_id"]
        seen = _number(request.headers.get("last-event-id", ""))
        history = await self._manager.get_saga_history(saga_id)
        if seen >= len(history) and await self._manager.saga_handle(saga_id).status() in _OVER:
            return Response(status_code=HTTPStatus.NO_CONTENT)  # for a browser: do not come again

        async def write(channel: Channel) -> None:
            with self._feed.listening_to(saga_id) as news:
                await self._follow(
                    saga_id, seen, channel, news, lambda entry: as_seen_by(request, entry, self._redaction)
                )

        return EventStream(write, self._closing)

    async def of_all(self, request: Request) -> Response:
        """What this process does with sagas, and every two seconds the counts of the whole namespace."""
        Query(request, ())
        run, _, number = request.headers.get("last-event-id", "").partition("-")
        since = _number(number) if run == self._feed.run else self._feed.number

        async def write(channel: Channel) -> None:
            await self._tell(channel, min(since, self._feed.number))

        return EventStream(write, self._closing)

    async def _follow(self, saga_id: str, seen: int, channel: Channel, news: Wait, show: Show) -> None:
        idle = trio.current_time()
        while True:
            # In this order: what the history does not have yet cannot have ended the saga.
            status = await self._manager.saga_handle(saga_id).status()
            history = await self._manager.get_saga_history(saga_id)
            for number, entry in enumerate(history[seen:], seen + 1):
                await channel.event(entry.event, show(entry), str(number))
                idle = trio.current_time()
            seen = max(seen, len(history))
            if status in _OVER:
                await channel.event("end", {"saga_id": saga_id, "status": status})
                return
            if trio.current_time() - idle >= _KEEP_ALIVE:
                await channel.keep_alive()
                idle = trio.current_time()
            await news(_LOOK_EVERY)

    async def _tell(self, channel: Channel, seen: int) -> None:
        counted = -_COUNT_EVERY
        while True:
            happened = self._feed.since(seen)
            if happened and happened[0].number > seen + 1:
                await channel.event("missed", {"events": happened[0].number - seen - 1})
            for happening in happened:
                await channel.event(happening.point, happening.document(), f"{self._feed.run}-{happening.number}")
                seen = happening.number
            if trio.current_time() - counted >= _COUNT_EVERY:
                await channel.event("counts", await self._feed.counts(self._manager))
                counted = trio.current_time()
            await self._feed.news(seen, _COUNT_EVERY)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0  # noqa: PLR2004 - no real number is longer
