"""Server-sent events: a response that goes on until its listener, the service or the subject itself ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...errors import DotmacTasksError
from ...jsonvalue import encode
from ..problems import problem_of
from .replies import encode_model

_COMEBACK = 2000
"""Milliseconds after which a browser whose stream ended connects again."""


class Channel:
    """Writes events to one listener."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def event(self, name: str, data: Any, number: str | None = None) -> None:
        """One event. `number` is what the listener sends back as ``Last-Event-ID`` when it comes again."""
        marked = b"" if number is None else b"id: %s\n" % number.encode()
        await self.write(b"%sevent: %s\ndata: %s\n\n" % (marked, name.encode(), encode_model(data)))

    async def keep_alive(self) -> None:
        """A line that means nothing, so that nobody in between takes the connection for dead."""
        await self.write(b":\n\n")

    async def write(self, data: bytes) -> None:
        """Bytes of the stream."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})


class EventStream(Response):
    """The response.

    Args:
        write: Writes the events; when it returns, the stream ends.
        closing: Set when the service stops: the stream ends as well.
    """

    media_type = "text/event-stream"

    def __init__(self, write: Callable[[Channel], Awaitable[None]], closing: trio.Event) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._write = write
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until somebody ends it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            await self._stream(receive, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, receive: Receive, send: Send) -> None:
        channel = Channel(send)

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        async def closed() -> None:
            await self._closing.wait()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(gone)
            nursery.start_soon(closed)
            await channel.write(b"retry: %d\n\n" % _COMEBACK)
            try:
                await self._write(channel)
            except DotmacTasksError as error:
                problem = problem_of(error)
                if problem is None:
                    raise
                # The status line is gone already; who comes again begins where this ended.
                await channel.write(b"event: problem\ndata: %s\n\n" % encode(problem.document()))
            nursery.cancel_scope.cancel()
