"""What is left of a request is read before its answer, unless the app listens itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from trio.testing import MockClock

from dotmac.tasks.service.unread import BODY_SECONDS, ReadFirst
from service.house import House, guarded_access

BODY = [b"first", b"second", b"last"]


async def said() -> AsyncIterator[bytes]:
    yield b"said"


async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
    """Listens for the end of its client all the time, as Starlette's streams do for servers of this version."""
    await StreamingResponse(said())(scope, receive, send)


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Begins to listen when its answer has begun."""
    async with trio.open_nursery() as nursery:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await send({"type": "http.response.body", "body": b"said"})
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("app", [streaming, reading, PlainTextResponse("said")])
@pytest.mark.parametrize("body", [[b""], BODY], ids=["empty", "parts"])
async def test_the_answer_leaves_as_soon_as_the_request_is_over(
    autojump_clock: MockClock, version: str, app: ASGIApp, body: list[bytes]
) -> None:
    parts, sent = list(body), list[Message]()

    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        if not parts:
            await trio.sleep_forever()  # the client stays
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"spec_version": "2.3"},
        "http_version": version,
        "method": "POST",
        "path": "/",
        "headers": [(b"content-length", str(len(b"".join(body))).encode())],
    }
    begin = trio.current_time()
    with trio.fail_after(60):
        await ReadFirst(app)(scope, receive, send)
    assert b"".join(message.get("body", b"") for message in sent) == b"said"
    assert trio.current_time() == begin, "it waited for something that did not come"
    assert not parts


class Stalled:
    """A request whose body begins and never ends."""

    def __init__(self, service: House, version: str) -> None:
        self._service = service
        self._version = version
        self._begun = False
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self._begun:
            await trio.sleep_forever()
        self._begun = True
        return {"type": "http.request", "body": b"t", "more_body": True}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def status(self, path: str) -> int:
        headers = [(b"host", b"127.0.0.1:8080"), (b"content-length", b"100"), (b"content-type", b"application/json")]
        scope: dict[str, Any] = {
            "type": "http", "http_version": self._version, "method": "POST", "path": path, "headers": headers,
            "raw_path": path.encode(), "query_string": b"", "scheme": "http", "server": ("127.0.0.1", 8080),
            "root_path": "",
        }  # fmt: skip
        await self._service.app(scope, self.receive, self.send)
        return int(self.sent[0]["status"])


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize(("guarded", "path", "status"), [
    (True, "/login", 408), (True, "/v1/sagas", 401), (True, "/nope", 401), (False, "/v1/sagas", 408),
])  # fmt: skip
async def test_a_body_that_never_ends_is_answered_within_its_deadline(
    autojump_clock: MockClock, version: str, guarded: bool, path: str, status: int
) -> None:
    service = House(guarded_access() if guarded else None)
    async with service.manager:
        began = trio.current_time()
        assert await Stalled(service, version).status(path) == status
        assert trio.current_time() - began < (BODY_SECONDS + 5 if status == 408 else 5)
