"""A request's body, read to its end before anything is decided, and given to the app afterwards as if nothing was.

The fingerprint covers the body, so the body has to be there before the key can be claimed. A small one stays in
memory; a large one goes to a temporary file, so that memory does not grow with it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from typing import IO

import anyio

from .asgi import ClientGone, Message, Receive, Reply, Scope, Send, header_values
from .threads import in_thread

IN_MEMORY = 262_144
"""Bytes of a body that stay in memory."""

_CHUNK = 262_144
_DRAINED = 1_048_576  # bytes of a body that are cheaper to read and throw away than a new connection
_DRAIN_SECONDS = 2.0
_LENGTH_DIGITS = 20


class BodyTooLarge(Exception):
    """The body has more bytes than are allowed. Said to ourselves only: it becomes a 413.

    Attributes:
        unread: Whether there are bytes that nobody has read.
    """

    def __init__(self, *, unread: bool) -> None:
        super().__init__()
        self.unread = unread


class BufferedBody:
    """The bytes of one body. Use it as a context manager: a temporary file ends with it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> BufferedBody:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    async def fill(self, receive: Receive, feed: Callable[[bytes], None], limit: int | None) -> None:
        """Read the body to its end.

        Args:
            receive: The server's.
            feed: Gets every chunk as it comes.
            limit: Bytes that are allowed; None: any number.

        Raises:
            BodyTooLarge: There are more.
            ClientGone: There will not be more.
        """
        total = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            if chunk:
                total += len(chunk)
                if limit is not None and total > limit:
                    raise BodyTooLarge(unread=message.get("more_body", False))
                feed(chunk)
                await self._add(chunk)
            if not message.get("more_body", False):
                break
        if self._file is not None:
            await self._write_out()
            await in_thread(self._file.seek, 0)

    async def _add(self, chunk: bytes) -> None:
        self._parts.append(chunk)
        self._size += len(chunk)
        if self._size > IN_MEMORY:
            await self._write_out()

    async def _write_out(self) -> None:
        """Move what has gathered to the file, in one go and in a thread: a disk can be slow."""
        parts, self._parts, self._size = self._parts, [], 0
        if self._file is None:
            self._file = await in_thread(tempfile.TemporaryFile)
        await in_thread(self._file.writelines, parts)

    def replayed(self, receive: Receive) -> Receive:
        """A `receive` that gives the body once more, and after it whatever the server has to say.

        Args:
            receive: The server's; asked once the body was given out.
        """
        ended = False

        async def next_message() -> Message:
            nonlocal ended
            if ended:
                return await receive()
            if self._file is None:
                ended = True
                body, self._parts = b"".join(self._parts), []
                return {"type": "http.request", "body": body, "more_body": False}
            body = await in_thread(self._file.read, _CHUNK)
            ended = len(body) < _CHUNK
            return {"type": "http.request", "body": body, "more_body": not ended}

        return next_message


def announced_length(scope: Scope) -> int:
    """The length that the request says its body has; 0: it says none."""
    values = header_values(scope, b"content-length")
    if len(values) != 1 or not values[0].isdigit():
        return 0
    return int(values[0][:_LENGTH_DIGITS])  # Python refuses to read thousands of digits; so many are too many anyway


class Refusal(Reply):
    """A response to a request whose body is not read to its end (see `read_away`)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, at once if the client waits for it before it sends its body."""
        await read_away(scope, receive)
        await super().__call__(scope, receive, send)


async def read_away(scope: Scope, receive: Receive, *, most_seconds: float = math.inf) -> None:
    """Read what is left of a body, and throw it away, before the response that was made without it.

    Some of it is read, since a server can go on with a connection only behind the request; nothing where it says that
    it is longer, or where the client waits for the response before it sends it. On HTTP/2 it is all of it, however
    long: there a body that goes on behind the response makes Hypercorn (0.18) end, with all its connections.

    Args:
        scope: Of the request.
        receive: Of the request.
        most_seconds: Bound of the time on HTTP/2, for a server in which one connection cannot end the others.
    """
    if scope.get("http_version") == "2":
        with anyio.move_on_after(most_seconds):
            await _drain(receive, math.inf)
    elif announced_length(scope) <= _DRAINED and not header_values(scope, b"expect"):
        with anyio.move_on_after(_DRAIN_SECONDS):
            await _drain(receive, _DRAINED)


async def _drain(receive: Receive, most: float) -> None:
    """Read the rest of a body, to its end, to the client's, or to so many bytes."""
    while most > 0:
        message = await receive()
        if not message.get("more_body", False):
            return
        most -= len(message.get("body", b""))
