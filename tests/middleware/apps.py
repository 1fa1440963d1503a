"""ASGI apps as their handlers are: plain ones, whose every message a test decides."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

Handler = Callable[[dict[str, Any], bytes, Callable[[dict[str, Any]], Awaitable[None]]], Awaitable[None]]


def app_of(handler: Handler) -> Any:
    """An app that reads the whole body, then lets the handler send what it likes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await handler(scope, body, send)

    return app


async def answer(
    send: Any, status: int = 200, document: Any = None, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Send a whole response."""
    body = b"" if document is None else json.dumps(document).encode()
    lines = [(b"content-type", b"application/json"), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
