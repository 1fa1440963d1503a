"""A trio-asyncio loop inside the trio run: crossing over is a direct call in both directions."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import trio

from .host import Handover, Host, HostWire, close_wires
from .wire import Sink

_LOOKUPS = 8  # threads that look up names; trio's default ones may all be held by what a program does in threads

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


class _Protection(trio.abc.Instrument):
    """Keeps Ctrl-C out of a loop from its first moment, as trio keeps it out of its system tasks.

    A loop that Ctrl-C ends leaves its futures waiting for ever, and whoever awaits them, so that the program hangs. The
    signal is for the program's own task, which gets it at its next checkpoint. The task of the loop is started by
    trio-asyncio, and trio has no other way to reach it before it runs.
    """

    def task_spawned(self, task: Any) -> None:
        if task.coro.__name__ == "_main_loop" and hasattr(task, "_ki_protected"):
            task._ki_protected = True  # noqa: SLF001 - trio sets it where it starts a task, and only there


@asynccontextmanager
async def _protected(open_loop: Callable[[], Any]) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        protection = _Protection()
        trio.lowlevel.add_instrument(protection)
        try:
            loop = await stack.enter_async_context(open_loop())
        finally:
            trio.lowlevel.remove_instrument(protection)
        yield loop


@asynccontextmanager
async def open_trio_asyncio_host(open_loop: Callable[[], Any]) -> AsyncIterator[Host]:
    """Runs a loop in this trio run, made by `trio_asyncio.open_loop`; at the end no connection is left."""
    from trio_asyncio import TrioExecutor  # noqa: PLC0415 - importing it changes asyncio, so only who runs it does

    async with _protected(open_loop) as loop, trio.open_nursery() as tasks:
        loop.set_default_executor(TrioExecutor(limiter=trio.CapacityLimiter(_LOOKUPS)))
        host = TrioAsyncioHost(loop, tasks)
        try:
            yield host
        finally:
            with trio.CancelScope(shield=True):
                await host.run(functools.partial(close_wires, host.wires))
