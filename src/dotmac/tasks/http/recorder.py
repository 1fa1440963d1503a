"""Stands between an app and its server while the app works under a claim: passes everything on, and remembers it.

Chunks go to the client as they come. Only the last one waits, until the ending is stored: a client that has seen the
whole response can rely on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from .asgi import Headers, Message, Receive, Send

_BODILESS = frozenset({204, 304})  # statuses of responses without a body, whatever their Content-Length
_LENGTH_DIGITS = 20  # Python refuses to read thousands of digits


class Recorder:
    """One response on its way.

    Args:
        receive: The server's.
        send: The server's.
        limit: Bytes of a body up to which it is kept.
        on_last: Called before the last chunk goes on.

    Attributes:
        status: Once it has begun.
        headers: As the app sent them.
        body: What was kept of it.
        kept: Whether that is all of it.
        complete: Whether the app has sent its last chunk.
        body_read: Whether the app asked for the request's body before it began its response.
    """

    def __init__(
        self, receive: Receive, send: Send, limit: int, on_last: Callable[[Recorder], Awaitable[None]]
    ) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._on_last = on_last
        self._client_gone = False
        self._completed: anyio.Event | None = None  # made for who waits for it
        self._endless = False
        self._size = 0
        self._parts: list[bytes] = []
        self.status: int | None = None
        self.headers: Headers = []
        self.kept = True
        self.complete = False
        self.body_read = False

    @property
    def started(self) -> bool:
        """Whether the client may have seen something of a response."""
        return self.status is not None

    @property
    def is_short(self) -> bool:
        """Whether the body has fewer bytes than the response's Content-Length says."""
        lengths = [value for name, value in self.headers if name == b"content-length" and value.isdigit()]
        return self.status not in _BODILESS and any(self._size < int(length[:_LENGTH_DIGITS]) for length in lengths)

    @property
    def body(self) -> bytes:
        """What was kept of the body."""
        return b"".join(self._parts)

    async def receive(self) -> Message:
        """The server's next message. That the client hung up is not told to an app in the midst of its response.

        It would stop half-way, and the retry would find half an operation; so it goes on to the end.
        """
        self.body_read = self.body_read or not self.started
        message = await self._receive()
        if message["type"] == "http.disconnect" and self.started and not self._endless:
            await self._wait_for_completion()
        return message

    async def send(self, message: Message) -> None:
        """Takes the app's next message."""
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            headers = message.get("headers", ())
            if not isinstance(headers, list | tuple):  # such as a generator, which the server must have too
                message = {**message, "headers": (headers := list(headers))}
            self.headers = [(bytes(name).lower(), bytes(value)) for name, value in headers]
            if any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in self.headers):
                self._endless = True  # ends when the client goes, and must hear of that
                self._keep_nothing()
        elif kind == "http.response.body":
            self._keep(message.get("body", b""))
            if not message.get("more_body", False):
                await self._on_last(self)
                self.complete = True
                if self._completed is not None:
                    self._completed.set()
        await self._forward(message)

    async def _wait_for_completion(self) -> None:
        if not self.complete:
            self._completed = self._completed or anyio.Event()
            await self._completed.wait()

    def _keep(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._limit:
            self._keep_nothing()
        elif self.kept and chunk:
            self._parts.append(chunk)

    def _keep_nothing(self) -> None:
        self.kept = False
        self._parts.clear()

    async def _forward(self, message: Message) -> None:
        if self._client_gone:
            return
        try:
            await self._send(message)
        except OSError:  # how a server says that nobody listens any more; the work goes on, for the retry to find
            self._client_gone = True
