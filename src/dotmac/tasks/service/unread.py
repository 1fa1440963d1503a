"""Bodies that nobody reads: who is refused may still be sending one."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..http.body import read_away


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

        async def hear() -> Message:
            nonlocal over
            message = await receive()
            over = over or not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal over
            if not over and message["type"] == "http.response.start":
                over = True
                await read_away(scope, receive)
            await send(message)

        await self._app(scope, hear, answer)
