"""Where a caller waits: in an event loop of asyncio, in another trio run, or in a thread that blocks.

A wait always lasts until its thing has happened. A caller who is cancelled meanwhile has it cancelled, and goes on
waiting for its end; that he was cancelled is told him then, and he raises it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Protocol

import anyio
import trio

from ..errors import NotStarted, UsageError
from .call_queue import CallQueue
from .scopes import AsyncioScope, BodyScope, TrioScope

_log = logging.getLogger(__name__)


class Wait(Protocol):
    """A wait for one thing, once."""

    def notify(self) -> None:
        """It has happened. Can be called from any thread, and more than once."""

    async def until_notified(self, cancel: Callable[[], None]) -> BaseException | None:
        """Wait.

        Args:
            cancel: Called once, when the caller is cancelled while he waits.

        Returns:
            What the caller was cancelled with, to be raised by him; None: he was not.
        """


class Outgoing(Protocol):
    """A call that is on its way out of a caller's thread."""

    def send(self) -> None:
        """Have it carried out. Raises NotStarted: that cannot be."""

    def give_up(self) -> None:
        """It is not carried out."""


class CallerContext(Protocol):
    """The thread of a caller, seen from elsewhere."""

    def send(self, call: Outgoing) -> None:
        """Send a call of the present task, with others if there are any. Raises NotStarted, or has the call end so."""

    def post(self, call: Callable[[], None]) -> None:
        """Have the caller's thread call this soon. Where that thread has no more use for it, it is left out."""

    @property
    def gone(self) -> bool:
        """Whether its tasks will never run again, ended or not."""

    def wait(self) -> Wait:
        """A wait that begins now."""

    def scope(self) -> BodyScope:
        """A scope for a block of the present task."""


def warn_of_closed_loop(error: RuntimeError) -> None:
    """A loop that was to be told something was closed: whoever waited in it is gone."""
    _log.warning("an event loop was closed before it was told how a call of its own ended: %s", error)


class AsyncioCaller:
    """The caller is a task in an event loop of asyncio; one side is for all its tasks.

    Args:
        loop: The loop.
        bag: Brings calls to it.

    Attributes:
        loop: The same.
        bag: The same.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, bag: CallQueue) -> None:
        self.loop = loop
        self.bag = bag
        self._going: list[Outgoing] = []

    def send(self, call: Outgoing) -> None:
        """See `CallerContext`. Calls of one turn of the loop share one wake-up."""
        if not self._going:
            self.loop.call_soon(self._send_all)
        self._going.append(call)

    def _send_all(self) -> None:
        going, self._going = self._going, []
        for call in going:
            try:
                call.send()
            except NotStarted:
                call.give_up()

    def post(self, call: Callable[[], None]) -> None:
        """See `CallerContext`."""
        try:
            self.bag.put(call)
        except RuntimeError as error:
            warn_of_closed_loop(error)

    @property
    def gone(self) -> bool:
        """See `CallerContext`."""
        return self.loop.is_closed()

    def wait(self) -> Wait:
        """See `CallerContext`."""
        return _LoopWait(self)

    def scope(self) -> BodyScope:
        """See `CallerContext`."""
        return AsyncioScope()


class _LoopWait:
    __slots__ = ("_over", "_side", "_waiter")

    def __init__(self, side: AsyncioCaller) -> None:
        self._side = side
        self._waiter = side.loop.create_future()
        self._over = False

    def notify(self) -> None:
        self._side.post(self._wake)

    def _wake(self) -> None:
        self._over = True
        if not self._waiter.done():
            self._waiter.set_result(None)

    async def until_notified(self, cancel: Callable[[], None]) -> BaseException | None:
        try:
            await self._waiter
        except asyncio.CancelledError as error:
            cancelled = error
        else:
            return None
        cancel()
        # anyio's scopes cancel again and again, which a shield of anyio's keeps off; the loop is for all others.
        with anyio.CancelScope(shield=True):
            while not self._over:
                if self._waiter.done():
                    self._waiter = self._side.loop.create_future()
                try:
                    await self._waiter
                except asyncio.CancelledError:
                    continue  # it is cancelled already, and one cancellation is what will be raised
        return cancelled


class TrioCaller:
    """The caller is a task in a trio run of its own."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()

    def send(self, call: Outgoing) -> None:
        """See `CallerContext`."""
        call.send()

    def post(self, call: Callable[[], None]) -> None:
        """See `CallerContext`."""
        try:
            self._token.run_sync_soon(call)
        except trio.RunFinishedError as error:
            _log.warning("a trio run was over before it was told how a call of its own ended: %s", error)

    @property
    def gone(self) -> bool:
        """See `CallerContext`. A trio run ends all of its tasks."""
        return False

    def wait(self) -> Wait:
        """See `CallerContext`."""
        return _TrioWait(self)

    def scope(self) -> BodyScope:
        """See `CallerContext`."""
        return TrioScope()


class _TrioWait:
    def __init__(self, side: TrioCaller) -> None:
        self._side = side
        self._happened = trio.Event()

    def notify(self) -> None:
        self._side.post(self._happened.set)

    async def until_notified(self, cancel: Callable[[], None]) -> BaseException | None:
        try:
            await self._happened.wait()
        except BaseException as error:  # Cancelled, or a Ctrl-C that hit this task
            cancel()
            with trio.CancelScope(shield=True):
                await self._happened.wait()
            return error
        return None


class ThreadWait:
    """The caller is a thread, which blocks."""

    def __init__(self) -> None:
        self._happened = threading.Event()

    def notify(self) -> None:
        """See `Wait`."""
        self._happened.set()

    def block(self, begin: Callable[[], None], cancel: Callable[[], None]) -> BaseException | None:
        """Begin what is waited for, and wait; as `Wait.until_notified`. What interrupts a thread is Ctrl-C.

        Args:
            begin: Called first; once more if it is interrupted, since nobody knows how far it came.
            cancel: Called when the caller is interrupted, after `begin`; it may be called again as well.

        Raises:
            NotStarted: Raised by `begin`: there is nothing to wait for.
        """
        interrupted: BaseException | None = None
        steps = [begin]
        while True:
            try:
                while steps:
                    steps[0]()
                    del steps[0]
                self._happened.wait()
            except NotStarted as error:
                if interrupted is not None:
                    raise interrupted from error
                raise
            except BaseException as error:
                if interrupted is None:
                    interrupted = error
                    steps.append(cancel)
                elif steps:  # a second time: it cannot be done
                    raise
            else:
                return interrupted


def refuse_event_loops() -> None:
    """Raise where blocking would block an event loop.

    Raises:
        UsageError: This is a task in an event loop.
    """
    if trio.lowlevel.in_trio_task() or asyncio._get_running_loop() is not None:  # noqa: SLF001 - see its docs
        raise UsageError(
            "manager.sync blocks, so it cannot be called from an event loop: await the manager's own method, or call "
            "it in a worker thread (asyncio.to_thread, trio.to_thread.run_sync)"
        )
