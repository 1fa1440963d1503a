"""One call of a router or an endpoint: whether its own response was complete when it ended.

A middleware inside can answer in place of an endpoint that it has cancelled (a time-out), or complete a response that
the endpoint broke off (Starlette's `BaseHTTPMiddleware`). The client's answer then says nothing about the effects of
the endpoint. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .asgi import Message, Scope, Send

Fate = Literal["ended", "cut off", "left running", "broken off"]
"""What is known of an endpoint once the client's answer is complete."""

_ERROR = 400  # a status from here on names an error
_FAULT = 500  # a status from here on names a fault of the server


class EndpointCall:
    """What was sent by one call, and how the call ended.

    Args:
        scope: Of the call; None: the call is one of an endpoint.
    """

    __slots__ = ("_cancelled", "_complete", "_running", "_status", "has_endpoint", "scope")

    def __init__(self, scope: Scope | None) -> None:
        self.scope = scope
        self.has_endpoint = scope is None
        self._status: int | None = None
        self._complete = False
        self._running = True
        self._cancelled = False

    def watched(self, send: Send) -> Send:
        """A `send` for the call, which notes the messages."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                self._complete = True
            await send(message)

        return noting

    def end(self, error: BaseException | None) -> None:
        """The call returned, or raised."""
        self._running, self.scope = False, None
        self._cancelled = error is not None and not isinstance(error, Exception)

    def fate(self, answered: int) -> Fate:
        """What became of the endpoint.

        Args:
            answered: Status of the client's answer. A middleware that answers with a success in place of the
                endpoint takes the operation over.
        """
        if self._complete:
            return "ended"
        started = self._status is not None
        is_error_page = answered >= _FAULT > (self._status or 0)
        if self._running:
            replaced = is_error_page or (not started and answered >= _ERROR)
            return "left running" if replaced else "ended"
        if self._cancelled:
            return "cut off" if started or answered >= _ERROR else "ended"
        return "broken off" if started and not is_error_page else "ended"
