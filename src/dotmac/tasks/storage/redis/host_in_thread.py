"""An ordinary asyncio loop in a helper thread, for where trio-asyncio cannot be imported.

Crossing over is done in batches: whatever gathers until the other thread comes round costs one wake-up.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import outcome
import trio

from dotmac.tasks.bridge.asyncio_calls import AsyncioCall
from dotmac.tasks.bridge.call_queue import CallQueue

from .host import Handover, Host, HostWire, close_wires
from .wire import Sink

T = TypeVar("T")


class ThreadHost:
    """Runs asyncio in a helper thread. See `Crossing` for its attributes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, token: trio.lowlevel.TrioToken, tasks: trio.Nursery) -> None:
        self._loop = loop
        self.tasks = tasks
        self.wires: set[HostWire] = set()
        self.to_loop: Handover = CallQueue(loop.call_soon_threadsafe).put
        self.to_trio: Handover = CallQueue(token.run_sync_soon).put

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """See `Host.run`."""
        return await AsyncioCall(self._loop, self.to_loop, self.to_trio, function).run()

    def wire(self, sink: Sink) -> HostWire:
        """See `Host.wire`."""
        return HostWire(sink, self)


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
    async with trio.open_nursery() as tasks:
        host = ThreadHost(loop, token, tasks)
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True):
                await host.run(functools.partial(close_wires, host.wires))
                loop.call_soon_threadsafe(loop.stop)
                await ended.wait()
