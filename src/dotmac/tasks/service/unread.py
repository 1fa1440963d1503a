"""Bodies that nobody reads: who is refused may still be sending one."""

from __future__ import annotations

import math
from functools import partial
from http import HTTPStatus

import anyio
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..http.body import read_away

BODY_SECONDS = 20.0
"""Time for a whole request body, from the end of the request's head, on every path and before sign-in too."""
_REST_SECONDS = 2.0  # for the rest of a body that no handler reads
_END: Message = {"type": "http.request", "more_body": False}
_GONE: Message = {"type": "http.disconnect"}


class ReadFirst:
    """ASGI middleware: no answer leaves before its request is over, and no request has longer than `BODY_SECONDS`.

    Most refusals need no body, nor do pages that are sent one all the same. The server could not go on with such a
    connection, and would drop it under a client that sends its next request there.

    Args:
        app: What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        over = started = False
        deadline = anyio.current_time() + BODY_SECONDS
        ear = anyio.Lock()  # a stream listens for its client's end while it answers, and so takes of the body too

        async def hear(*, rest: bool = False) -> Message:
            nonlocal over
            async with ear:
                if rest and over:
                    return _END
                with anyio.CancelScope(deadline=math.inf if over else deadline):
                    message = await receive()
                    over = over or not message.get("more_body", False)
                    return message
            if started:
                return _GONE
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"a request body has {BODY_SECONDS:g} s to arrive")

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if not over:
                    await read_away(scope, partial(hear, rest=True), most_seconds=_REST_SECONDS)
            await send(message)

        await self._app(scope, hear, answer)
