"""An ordinary asyncio loop in a helper thread, for where trio-asyncio cannot be imported.

A wire hands over in batches: whatever gathers until the other thread comes round costs one wake-up.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import outcome
import trio

from dotmac.tasks.crossing.loop_calls import LoopCall
from dotmac.tasks.crossing.mailbag import Mailbag

from .host import Host, HostWire, close_wires
from .wire import Sink

T = TypeVar("T")


class _ThreadWire(HostWire):
    def __init__(self, sink: Sink, host: ThreadHost) -> None:
        super().__init__()
        self._sink = sink
        self._host = host

    # in the trio thread
    def write(self, data: bytes) -> None:
        self._host.to_loop.put(functools.partial(self._write, data))

    def abort(self) -> None:
        self._host.to_loop.put(self._abort)

    # in the loop's thread
    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        else:
            self._host.wires.discard(self)

    def data_received(self, data: bytes) -> None:
        self._host.to_trio.put(functools.partial(self._sink.received, data))

    def pause_writing(self) -> None:
        self._host.to_trio.put(self._sink.paused)

    def resume_writing(self) -> None:
        self._host.to_trio.put(self._sink.resumed)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._host.wires.discard(self)
        self._host.to_trio.put(functools.partial(self._sink.lost, exc))


class ThreadHost:
    """Runs asyncio in a helper thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, token: trio.lowlevel.TrioToken) -> None:
        self._loop = loop
        self.wires: set[HostWire] = set()
        self.to_loop = Mailbag(loop.call_soon_threadsafe)
        self.to_trio = Mailbag(token.run_sync_soon)

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """See `Host.run`."""
        return await LoopCall(self._loop, self.to_loop.put, self.to_trio.put, function).run()

    def wire(self, sink: Sink) -> HostWire:
        """See `Host.wire`."""
        wire = _ThreadWire(sink, self)
        self.wires.add(wire)
        return wire


@asynccontextmanager
async def open_thread_host() -> AsyncIterator[Host]:
    """Runs a loop in a thread of its own; at the end no connection and no thread is left."""
    token = trio.lowlevel.current_trio_token()
    loop = asyncio.SelectorEventLoop()  # by name: trio-asyncio, where imported, refuses `new_event_loop` under trio
    ended = trio.Event()

    def run_loop() -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()

    def deliver(result: outcome.Outcome[None]) -> None:
        token.run_sync_soon(ended.set)
        result.unwrap()

    # Not `to_thread.run_sync`: cancelled before it begins, it would never run the loop that the end waits for.
    trio.lowlevel.start_thread_soon(run_loop, deliver, "dotmac-tasks-redis")
    host = ThreadHost(loop, token)
    try:
        yield host
    finally:
        with trio.CancelScope(shield=True):
            await host.run(functools.partial(close_wires, host.wires))
            loop.call_soon_threadsafe(loop.stop)
            await ended.wait()
