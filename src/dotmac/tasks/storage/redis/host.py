"""What runs asyncio for the trio side: the one seam between the two.

Everything that decides (queues, matching of replies, deadlines) runs in the trio thread. A host only runs asyncio
coroutines (the handshake) and makes wires (bytes out, bytes in), so that the two kinds of host stay small and equal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar

import trio
from redis.asyncio.connection import AbstractConnection

from .plain_socket import PlainSocket
from .wire import Sink, WireProtocol

T = TypeVar("T")
Handover = Callable[[Callable[[], None]], None]


class Crossing(Protocol):
    """What a wire needs of its host.

    Attributes:
        to_loop: Has the asyncio loop call something, in order.
        to_trio: Has the trio run call something, in order.
        tasks: In the trio run; each task ends with its connection.
        wires: All that may be open.
    """

    to_loop: Handover
    to_trio: Handover
    tasks: trio.Nursery
    wires: set[HostWire]


class HostWire(WireProtocol):
    """A wire as its host made it: the asyncio protocol and the trio side's `Wire` in one.

    What is not encrypted is read and written by trio; what is, only asyncio can read, so it crosses over.
    """

    def __init__(self, sink: Sink, host: Crossing) -> None:
        super().__init__()
        self._sink = sink
        self._host = host
        self._plain: PlainSocket | None = None
        host.wires.add(self)

    # --- in the trio run ------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See `Wire.write`."""
        if self._plain is not None:
            self._plain.write(data)
        else:
            self._host.to_loop(partial(self._write, data))

    def read(self) -> bool:
        """See `Wire.read`."""
        return self._plain is not None and self._plain.read()

    def abort(self) -> None:
        """See `Wire.abort`."""
        self._host.to_loop(self._abort)

    def _lost(self, error: Exception | None) -> None:
        if self._plain is not None:
            self._plain.end()
            error = error or self._plain.failure
        self._sink.lost(error)

    # --- in the asyncio loop --------------------------------------------------------------------------------

    def take_over(self, connection: AbstractConnection) -> None:
        """See `WireProtocol.take_over`."""
        super().take_over(connection)
        transport = self.transport
        if not isinstance(transport, asyncio.Transport) or transport.is_closing():
            return
        if transport.get_extra_info("sslcontext") is None:
            transport.pause_reading()
            # A descriptor of its own: the transport closes the other one without asking who waits for it.
            self._plain = PlainSocket(transport.get_extra_info("socket").dup(), self._sink, self.abort)
            self._host.to_trio(partial(self._host.tasks.start_soon, self._plain.serve))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._host.to_trio(partial(self._sink.received, data))

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._host.to_trio(self._sink.paused)

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._host.to_trio(self._sink.resumed)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        super().connection_lost(exc)
        self._host.wires.discard(self)
        self._host.to_trio(partial(self._lost, exc))

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        else:
            self._host.wires.discard(self)


class Host(Protocol):
    """A running asyncio loop."""

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Runs an asyncio coroutine function from trio. Cancelling the call cancels it and waits for its end."""

    def wire(self, sink: Sink) -> HostWire:
        """Makes a wire that is not connected yet; the host closes it when it ends itself."""


async def close_wires(wires: set[HostWire]) -> None:
    """Runs in asyncio: aborts what is open and waits until the transports are gone."""
    for wire in list(wires):
        if wire.transport is not None:
            wire.transport.abort()
            await wire.closed.wait()
