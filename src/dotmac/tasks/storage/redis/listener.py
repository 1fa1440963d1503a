"""One connection that carries messages: parses what comes, and knows when it is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hiredis
import trio

from .replies import ErrorReply

if TYPE_CHECKING:
    from .address import Address
    from .wire import Wire

_INCOMPLETE = object()


class Listener:
    """The receiving end of a connection with subscriptions.

    Attributes:
        ended: Set when the connection is gone.
        failure: Why it went, as text.
        heard: Whether anything came; may be reset to watch for silence.
        heard_at: When it came last, on trio's clock; the start of the connection before that.
    """

    def __init__(self, address: Address, on_said: Callable[[Listener, Any], None]) -> None:
        self.address = address
        self.ended = trio.Event()
        self.failure: str | None = None
        self.heard = False
        self.heard_at = trio.current_time()
        self._on_said = on_said
        self._wire: Wire | None = None
        self._reader = hiredis.Reader(
            replyError=ErrorReply, protocolError=hiredis.ProtocolError, notEnoughData=_INCOMPLETE
        )

    def opened(self, wire: Wire) -> None:
        """Takes the connection."""
        self._wire = wire

    def write(self, data: bytes) -> None:
        """Sends a command, if the connection is still there."""
        if self._wire is not None:
            self._wire.write(data)

    def close(self, reason: str) -> None:
        """Drops the connection; `ended` is set. May be called again; the first reason stays."""
        self._end(reason)
        if self._wire is not None:
            self._wire.abort()

    def received(self, data: bytes) -> None:
        """See `Sink.received`."""
        self.heard = True
        self.heard_at = trio.current_time()
        try:
            self._reader.feed(data)
            while self.failure is None and (said := self._reader.gets()) is not _INCOMPLETE:
                self._on_said(self, said)
        except hiredis.ProtocolError as error:
            self.close(f"what came is not the Redis protocol ({error})")

    def lost(self, error: Exception | None) -> None:
        """See `Sink.lost`."""
        self._end(f"the connection was lost ({error or 'closed by the server'})")

    def paused(self) -> None:
        """See `Sink.paused`. What is written here is small: the buffer takes it all the same."""

    def resumed(self) -> None:
        """See `Sink.resumed`."""

    def _end(self, reason: str) -> None:
        if self.failure is None:
            self.failure = f"{self.address}: {reason}"
            self.ended.set()
