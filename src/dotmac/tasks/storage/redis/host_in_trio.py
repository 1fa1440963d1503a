"""A trio-asyncio loop inside the trio run: crossing over is a direct call in both directions."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from .host import Handover, Host, HostWire, close_wires
from .wire import Sink

T = TypeVar("T")


class TrioAsyncioHost:
    """Runs asyncio in a trio-asyncio loop. See `Crossing` for its attributes."""

    def __init__(self, loop: Any, tasks: trio.Nursery) -> None:
        self._loop = loop
        self.tasks = tasks
        self.wires: set[HostWire] = set()
        self.to_loop: Handover = _call
        self.to_trio: Handover = _call

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """See `Host.run`."""

        async def as_coroutine() -> T:
            return await function()

        result: T = await self._loop.run_aio_coroutine(as_coroutine())
        return result

    def wire(self, sink: Sink) -> HostWire:
        """See `Host.wire`."""
        return HostWire(sink, self)


def _call(call: Callable[[], None]) -> None:
    call()


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
