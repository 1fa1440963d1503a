"""ASGI's own words, as types, and the few things one asks of a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The client hung up before its request was complete. Said to ourselves only: it never leaves the middleware."""


class Reply:
    """A response whose messages are at hand; an ASGI app of its own."""

    __slots__ = ("messages",)

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        for message in self.messages:
            await send(message)


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """The lines of a request's field; its name in lower case."""
    return [value for key, value in scope["headers"] if key.lower() == name]


def with_header(app: ASGIApp, header: tuple[bytes, bytes]) -> ASGIApp:
    """The app, with one header more in its response."""

    async def app_with_header(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        await app(scope, receive, send_more)

    return app_with_header


def route_path(scope: Scope) -> str:
    """The path as the app's routes have it: without the prefix under which the app is mounted."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if prefix and (path == prefix or path.startswith(prefix + "/")):
        return path[len(prefix) :]
    return path
