"""The HTTP server of a service process: Hypercorn's, in which one connection cannot end the others.

Hypercorn (0.18) ends as a whole when it meets an error of its own in one connection. A client can bring that about: by
HTTP/2 data behind the answer, or by WebSocket frames sent along with a handshake that is refused. Hypercorn accepts
each connection too, until the file descriptors run out; here a connection closes before that (see `connections`).
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import hypercorn.trio.run
import trio
from hypercorn.events import Event
from hypercorn.trio import serve
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ConnectionState

from .connections import Places, state_with

_WARN_EVERY = 60.0  # seconds between two warnings of the same kind
_log = logging.getLogger(__name__)
_places = Places()  # of this process, as its file descriptors are

__all__ = ["serve"]


class Connection(TCPServer):
    """One connection. An error in it ends it, and is logged."""

    async def run(self) -> None:
        """Serve it to its end."""
        stream: Any = self.stream
        socket = getattr(stream, "transport_stream", stream).socket
        with _places.taken(socket.fileno(), socket.close) as self._place:
            self.state = ConnectionState(state_with(self.state, self._place))
            try:
                await super().run()
            except* Exception as errors:
                if not self._place.closed:
                    _log.warning("a connection was given up: the HTTP server failed in it", exc_info=errors)
            finally:
                await trio.aclose_forcefully(self.stream)

    async def protocol_send(self, event: Event) -> None:
        """Send what the protocol has to say."""
        await super().protocol_send(event)
        _places.used(self._place)


class _OncePerMinute(logging.Filter):
    """Lets one record per minute through, without its traceback: trio repeats a refused accept ten times a second."""

    _next = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _WARN_EVERY
        record.exc_info = record.exc_text = None
        return True


hypercorn.trio.run.TCPServer = Connection  # type: ignore[attr-defined]  # there is no parameter for it
logging.getLogger("trio.serve_listeners").addFilter(_OncePerMinute())
