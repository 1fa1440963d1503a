"""Bodies that nobody reads: who is refused may still be sending one."""

from __future__ import annotations

from functools import partial

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..http.body import read_away

_END: Message = {"type": "http.request", "more_body": False}


class ReadFirst:
    """ASGI middleware: no answer leaves before its request is over.

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
        over = False
        ear = anyio.Lock()  # a stream listens for its client's end while it answers, and so takes of the body too

        async def hear(*, rest: bool = False) -> Message:
            nonlocal over
            async with ear:
                message = _END if rest and over else await receive()
                over = over or not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            if not over and message["type"] == "http.response.start":
                await read_away(scope, partial(hear, rest=True))
            await send(message)

        await self._app(scope, hear, answer)
