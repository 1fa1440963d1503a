"""What is left of a request is read before its answer, unless the app listens itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from trio.testing import MockClock

from dotmac.tasks.service.unread import ReadFirst

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
