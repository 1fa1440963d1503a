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
from ...storage.history import HistoryPosition, entries_after
from ..feed import Feed
from ..problems import Problem
from ..redaction import Redaction
from .query import Query
from .replies import as_seen_by
from .shared_looks import SharedLooks, Watched
from .streams import Channel, EventStream

_LOOK_EVERY = 1.0  # seconds between two looks at a saga that may run in another process
_KEEP_ALIVE = 15.0
_COUNT_EVERY = 2.0
MAX_STREAMS = 500
"""Streams of sagas, and streams of everything, that a process serves at a time; more are answered with 503."""
_RETRY_STREAM = 10  # seconds
Wait = Callable[[float], Awaitable[bool]]
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
        self._looks = SharedLooks(manager, MAX_STREAMS)
        self._streams = 0

    async def of_saga(self, request: Request) -> Response:
        """The saga's history, entry by entry, then each new one; it ends with the saga, but not when it is parked."""
        Query(request, ())
        saga_id: str = request.path_params["saga_id"]
        seen = HistoryPosition.parse(request.headers.get("last-event-id", ""))
        if self._looks.is_full:
            return _too_many_streams()
        with self._looks.watching(saga_id) as watched:
            look = await self._looks.look(watched, _LOOK_EVERY)
        if look.status in _OVER and entries_after(look.history, seen) == []:
            return Response(status_code=HTTPStatus.NO_CONTENT)  # for a browser: do not come again

        async def write(channel: Channel) -> None:
            with self._feed.listening_to(saga_id) as news, self._looks.watching(saga_id, watched) as followed:
                await self._follow(
                    followed, seen, channel, news, lambda entry: as_seen_by(request, entry, self._redaction)
                )

        return EventStream(write, self._closing)

    async def of_all(self, request: Request) -> Response:
        """What this process does with sagas, and every two seconds the counts of the whole namespace."""
        Query(request, ())
        run, _, number = request.headers.get("last-event-id", "").partition("-")
        since = _number(number) if run == self._feed.run else self._feed.number

        if self._streams >= MAX_STREAMS:
            return _too_many_streams()

        async def write(channel: Channel) -> None:
            self._streams += 1
            try:
                await self._tell(channel, min(since, self._feed.number))
            finally:
                self._streams -= 1

        return EventStream(write, self._closing)

    async def _follow(
        self, watched: Watched, seen: HistoryPosition | None, channel: Channel, news: Wait, show: Show
    ) -> None:
        saga_id = watched.history.saga_id
        idle = trio.current_time()
        max_age = _LOOK_EVERY  # the look that came before the response
        while True:
            look = await self._looks.look(watched, max_age)
            new = entries_after(look.history, seen)
            if new is None:
                await channel.event("restarted", {"saga_id": saga_id})
                new, seen = look.history, None
            number = 0 if seen is None else seen.number
            for entry in new:
                number += 1
                seen = HistoryPosition(number, entry.timestamp)
                await channel.event(entry.event, show(entry), str(seen))
                idle = trio.current_time()
            if look.status in _OVER:
                await channel.event("end", {"saga_id": saga_id, "status": look.status})
                return
            if trio.current_time() - idle >= _KEEP_ALIVE:
                await channel.keep_alive()
                idle = trio.current_time()
            # After news, only a look that began later has them.
            max_age = 0.0 if await news(_LOOK_EVERY) else 0.9 * _LOOK_EVERY

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


def _too_many_streams() -> Response:
    detail = f"this process serves {MAX_STREAMS} event streams already; repeat the request later"
    headers = {"Retry-After": str(_RETRY_STREAM)}
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "too-many-streams", detail, headers=headers).response()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0  # noqa: PLR2004 - no real number is longer
