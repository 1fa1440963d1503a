"""The HTTP server of a service process: Hypercorn's, in which one connection cannot end the others.

Hypercorn (0.18) ends as a whole when it meets an error of its own in one connection. A client can bring that about: by
HTTP/2 data behind the answer, or by WebSocket frames sent along with a handshake that is refused.
"""

from __future__ import annotations

import logging

import hypercorn.trio.run
import trio
from hypercorn.trio import serve
from hypercorn.trio.tcp_server import TCPServer

_log = logging.getLogger(__name__)

__all__ = ["serve"]


class Connection(TCPServer):
    """One connection. An error in it ends it, and is logged."""

    async def run(self) -> None:
        """Serve it to its end."""
        try:
            await super().run()
        except* Exception as errors:
            _log.warning("a connection was given up: the HTTP server failed in it", exc_info=errors)
        finally:
            await trio.aclose_forcefully(self.stream)


hypercorn.trio.run.TCPServer = Connection  # type: ignore[attr-defined]  # there is no parameter for it
