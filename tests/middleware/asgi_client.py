"""A client without a server: calls an ASGI app in this very task, and keeps every message it sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import trio


class Response:
    """What came back."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    @property
    def status(self) -> int:
        status: int = self.messages[0]["status"]
        return status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(bytes(name), bytes(value)) for name, value in self.messages[0]["headers"]]

    def header(self, name: str) -> str | None:
        values = [value.decode() for key, value in self.headers if key == name.lower().encode()]
        assert len(values) < 2
        return values[0] if values else None

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def replayed(self) -> bool:
        return self.header("idempotency-replayed") == "true"

    @property
    def problem(self) -> str:
        assert self.header("content-type") == "application/problem+json"
        assert self.json["status"] == self.status
        slug: str = self.json["type"].removeprefix("urn:dotmac-tasks:problem:")
        return slug


class Client:
    """Sends requests to an app as one tenant.

    Attributes:
        hang_up: Once set, the connection is gone.
    """

    def __init__(self, app: Any, tenant: str | None = "acme") -> None:
        self.app = app
        self.tenant = tenant
        self.hang_up = trio.Event()
        self.on_send: Callable[[dict[str, Any]], None] = lambda _message: None

    async def post(
        self,
        path: str = "/",
        body: bytes | Iterable[bytes] = b"",
        *,
        key: str | None = "k",
        method: str = "POST",
        headers: Iterable[tuple[str, str]] = (),
        **scope: Any,
    ) -> Response:
        """Send a request and return once the app has returned."""
        path, _, query = path.partition("?")
        lines = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        if key is not None:
            lines.append((b"idempotency-key", key.encode("latin-1")))
        if self.tenant is not None:
            lines.append((b"x-tenant-id", self.tenant.encode()))
        base = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "root_path": "",
            "query_string": query.encode(),
            "headers": lines,
        }
        chunks = [body] if isinstance(body, bytes) else list(body)
        response = Response()

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            if chunks:
                chunk = chunks.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}
            await self.hang_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if self.hang_up.is_set():
                raise OSError("the client is gone")
            self.on_send(message)
            response.messages.append(message)

        await self.app(base | scope, receive, send)
        return response
