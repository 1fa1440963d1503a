"""Calls out of a trio run, into an event loop of asyncio in another thread."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Generic, TypeVar

import trio

from ..errors import NotStarted
from .identity import act_for, current_caller

T = TypeVar("T")
Post = Callable[[Callable[[], None]], None]

_LOOK = 1.0  # seconds between two checks whether the loop is closed
_log = logging.getLogger(__name__)


class LoopClosed(RuntimeError):
    """The event loop is closed: nothing can run in it any more."""


class AsyncioCall(Generic[T]):
    """One call of a coroutine function, as a task of a loop that runs in another thread.

    Args:
        loop: The loop.
        to_loop: Brings calls to it.
        to_trio: Brings calls to the trio run.
        function: What to run.
        context: Of the task; None: a copy of whatever the loop has at hand.
        grace: Seconds that the task may take to end after it was cancelled; then it is left behind.

    Attributes:
        left: Whether the task was left behind. Its late result is dropped.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        to_loop: Post,
        to_trio: Post,
        function: Callable[[], Awaitable[T]],
        context: Context | None = None,
        *,
        grace: float = math.inf,
    ) -> None:
        self._loop = loop
        self._to_loop = to_loop
        self._to_trio = to_trio
        self._function = function
        self._context = context
        self._grace = grace
        self.left = False
        self._caller = current_caller()
        self._task: asyncio.Task[T] | None = None
        self._failure: Exception | None = None
        self._given_up = False
        self._waited_for = trio.Event()

    # --- in the trio run ------------------------------------------------------------------------------------

    async def run(self) -> T:
        """Run it, and wait for its end. Cancelling this cancels the task, and still waits for the time of grace.

        A result or an error that comes in spite of that counts.

        Raises:
            LoopClosed: The task did not run, or nobody knows how it ended.
            asyncio.CancelledError: The task was cancelled, and not from here.
            BaseException: What it raised, or what kept the loop from making a task of it.
        """
        try:
            self._to_loop(self._begin)
        except RuntimeError as error:
            raise LoopClosed("the event loop is closed") from error
        try:
            await wait_or_loop_closed(self._waited_for, self._loop.is_closed)
        except BaseException as error:
            with suppress(RuntimeError):  # the loop is closed, so there is nothing to wait for
                self._to_loop(self._cancel)
                with trio.move_on_after(self._grace, shield=True):
                    await wait_or_loop_closed(self._waited_for, self._loop.is_closed)
                self.left = not self._waited_for.is_set() and not self._loop.is_closed()
            if not self._has_ended_by_itself or not isinstance(error, trio.Cancelled):
                raise
        return self._result()

    def give_up(self) -> None:
        """The loop will run nothing more: wait no longer. Should it run again all the same, the task is cancelled."""
        self._given_up = True
        with suppress(RuntimeError):  # the loop is closed
            self._to_loop(self._cancel)
        self._waited_for.set()

    @property
    def _has_ended_by_itself(self) -> bool:
        return self._task is not None and self._task.done() and not self._task.cancelled()

    def _result(self) -> T:
        task = self._task
        if self._failure is not None:
            raise self._failure
        if task is None or not task.done():
            raise LoopClosed("the event loop ended before the task did")
        if task.cancelled() or isinstance(task.exception(), KeyboardInterrupt | SystemExit):
            # Those two end the loop's own thread, where they were raised as well.
            raise asyncio.CancelledError
        return task.result()

    # --- in the loop, in this order -------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._given_up:
            return
        running = self._run()
        try:
            # In the context and not with it: a task factory need not take one.
            create = self._loop.create_task
            self._task = create(running) if self._context is None else self._context.run(create, running)
        except BaseException as error:  # of a task factory, or Ctrl-C
            running.close()
            if isinstance(error, Exception):
                self._failure = error
            self._wake()
            if self._failure is None:
                raise
        else:
            self._task.add_done_callback(self._done)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _done(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # it is looked at, if only by the trio side
        if not self.left:
            self._wake()

    def _wake(self) -> None:
        try:
            self._to_trio(self._waited_for.set)
        except (trio.RunFinishedError, NotStarted) as error:
            _log.warning("a trio run was over before it was told how a task of its own ended: %s", error)

    async def _run(self) -> T:
        act_for(self._caller)
        return await self._function()


async def wait_or_loop_closed(told: trio.Event, gone: Callable[[], bool]) -> bool:
    """Wait until the event is set or the event loop that would set it is closed.

    A closed loop runs no callback, so it cannot report its own closing.

    Args:
        told: Set by the loop, in the trio thread.
        gone: Returns True once the loop is closed; called once a second.

    Returns:
        True if the event was set.
    """
    while not told.is_set():
        if gone():
            return False
        with trio.move_on_after(_LOOK):
            await told.wait()
    return True
