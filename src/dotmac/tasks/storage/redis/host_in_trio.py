"""A trio-asyncio loop inside the trio run.

A wire is a direct call in both directions, and a trio task reads the socket: trio-asyncio would take two more turns
of the scheduler for each read.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from redis.asyncio.connection import AbstractConnection

from .host import Host, HostWire, close_wires
from .wire import Sink

T = TypeVar("T")

_READ_SIZE = 262_144


class _DirectWire(HostWire):
    def __init__(self, sink: Sink, host: TrioAsyncioHost) -> None:
        super().__init__()
        self._sink = sink
        self._host = host
        self._reading = trio.CancelScope(shield=True)  # for as long as there is a connection, whoever is cancelled
        self._failure: Exception | None = None
        self.data_received = sink.received  # type: ignore[method-assign]  # one call less for each read
        self.pause_writing = sink.paused  # type: ignore[method-assign]
        self.resume_writing = sink.resumed  # type: ignore[method-assign]

    def take_over(self, connection: AbstractConnection) -> None:
        super().take_over(connection)
        transport = self.transport
        if not isinstance(transport, asyncio.Transport) or transport.is_closing():
            return
        if transport.get_extra_info("sslcontext") is None:  # what is encrypted only asyncio can read
            transport.pause_reading()
            # A descriptor of its own: the transport closes the other one without asking who waits for it.
            self._host.tasks.start_soon(self._read, transport, transport.get_extra_info("socket").dup())

    async def _read(self, transport: asyncio.Transport, source: socket.socket) -> None:
        with source, self._reading:
            while True:
                await trio.lowlevel.wait_readable(source)
                try:
                    data = source.recv(_READ_SIZE)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError as error:
                    self._failure = error
                    break
                if not data:
                    break
                self.data_received(data)
            transport.abort()

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        else:
            self._host.wires.discard(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._reading.cancel()
        self._host.wires.discard(self)
        self._sink.lost(exc or self._failure)


class TrioAsyncioHost:
    """Runs asyncio in a trio-asyncio loop.

    Attributes:
        tasks: Those that read; each ends with its connection.
    """

    def __init__(self, loop: Any, tasks: trio.Nursery) -> None:
        self._loop = loop
        self.tasks = tasks
        self.wires: set[HostWire] = set()

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """See `Host.run`."""

        async def as_coroutine() -> T:
            return await function()

        result: T = await self._loop.run_aio_coroutine(as_coroutine())
        return result

    def wire(self, sink: Sink) -> HostWire:
        """See `Host.wire`."""
        wire = _DirectWire(sink, self)
        self.wires.add(wire)
        return wire


@asynccontextmanager
async def open_trio_asyncio_host(open_loop: Callable[[], Any]) -> AsyncIterator[Host]:
    """Runs a loop in this trio run, made by `trio_asyncio.open_loop`; at the end no connection is left."""
    async with open_loop() as loop, trio.open_nursery() as tasks:
        host = TrioAsyncioHost(loop, tasks)
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True):
                await host.run(functools.partial(close_wires, host.wires))
