"""Calls out of a trio run, into an event loop of asyncio in another thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Generic, TypeVar

import trio

from ..errors import NotStarted
from .identity import act_for, current_caller

T = TypeVar("T")
Post = Callable[[Callable[[], None]], None]

_log = logging.getLogger(__name__)


class LoopClosed(RuntimeError):
    """The event loop is closed: nothing can run in it any more."""


async def run_in_loop(
    loop: asyncio.AbstractEventLoop,
    to_loop: Post,
    to_trio: Post,
    function: Callable[[], Awaitable[T]],
    context: Context | None = None,
) -> T:
    """Run a coroutine function as a task of the loop.

    Cancelling the call cancels the task and waits for its end. A result or an error that comes all the same counts.

    Args:
        loop: Runs in another thread.
        to_loop: Brings calls to it.
        to_trio: Brings calls to the trio run.
        function: What to run.
        context: Of the task; None: a copy of whatever the loop has at hand.

    Raises:
        LoopClosed: It did not run.
        asyncio.CancelledError: The task was cancelled, and not from here.
        BaseException: What it raised.
    """
    call = _LoopCall(loop, to_trio, function, context)
    try:
        to_loop(call.begin)
    except RuntimeError as error:
        raise LoopClosed("the event loop is closed") from error
    try:
        await call.ended.wait()
    except BaseException as error:
        with suppress(RuntimeError):  # the loop is closed, so there is nothing to wait for
            to_loop(call.cancel)
            with trio.CancelScope(shield=True):
                await call.ended.wait()
        if call.was_cancelled or not isinstance(error, trio.Cancelled):
            raise
    return call.result()


class _LoopCall(Generic[T]):
    """Begun and cancelled in the loop's thread, in this order."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        to_trio: Post,
        function: Callable[[], Awaitable[T]],
        context: Context | None,
    ) -> None:
        self._loop = loop
        self._to_trio = to_trio
        self._function = function
        self._context = context
        self._caller = current_caller()
        self._task: asyncio.Task[T] | None = None
        self.ended = trio.Event()

    def begin(self) -> None:
        self._task = self._loop.create_task(self._run(), context=self._context)
        self._task.add_done_callback(self._done)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    @property
    def was_cancelled(self) -> bool:
        """Whether the task came to no end of its own."""
        return not self.ended.is_set() or self._task is None or self._task.cancelled()

    def result(self) -> T:
        task = self._task
        if task is None or task.cancelled() or isinstance(task.exception(), KeyboardInterrupt | SystemExit):
            # Those two end the loop's own thread, where they were raised as well.
            raise asyncio.CancelledError
        return task.result()

    def _done(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # it is looked at, if only by the trio side
        try:
            self._to_trio(self.ended.set)
        except (trio.RunFinishedError, NotStarted) as error:
            _log.warning("a trio run was over before it was told how a task of its own ended: %s", error)

    async def _run(self) -> T:
        act_for(self._caller)
        return await self._function()
