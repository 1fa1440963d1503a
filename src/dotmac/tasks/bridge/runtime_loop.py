"""The trio run that calls go into, as it is seen from outside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from threading import get_ident
from typing import Any, TypeVar

import outcome
import sniffio
import trio
from trio.lowlevel import in_trio_task

from ..errors import NotStarted
from .call import Call
from .call_queue import CallQueue
from .callers import AsyncioCaller, CallerContext, ThreadWait, TrioCaller, warn_of_closed_loop
from .task_pool import TaskPool

T = TypeVar("T")
Undo = Callable[[T], Awaitable[object]]
Waker = Callable[[Callable[[], None]], object]

_log = logging.getLogger(__name__)


class RuntimeLoop:
    """Where something lives that others call.

    Calls that are sent before it is opened wait for that. From its closing on, every call ends with `NotStarted`.

    Attributes:
        carriers: Carry the calls out.
        vacant: Set while no call is being carried out.
    """

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = 0
        self._bag = CallQueue(self._wake)
        self._calls: set[Call[Any]] = set()
        self._loops: dict[asyncio.AbstractEventLoop, AsyncioCaller] = {}
        self._closed = False
        self._failure: BaseException | None = None
        self.carriers = TaskPool()
        self.vacant = trio.Event()
        self.vacant.set()

    # --- in the trio run ------------------------------------------------------------------------------------

    def open(self) -> None:
        """The present trio run is the home from now on. Opening it again in the same run does nothing."""
        self._token = trio.lowlevel.current_trio_token()
        self._thread = get_ident()
        self._bag.empty()

    def close(self, failure: BaseException | None = None) -> None:
        """Have all calls end, and take no more.

        Args:
            failure: Why it is closed, if that is no good reason.
        """
        if self._shut(failure):
            for call in tuple(self._calls):
                call.close()
            self.carriers.close()

    def admit(self, call: Call[Any]) -> bool:
        """Keep track of a call; False: it comes too late."""
        if self._closed:
            return False
        if not self._calls:
            self.vacant = trio.Event()
        self._calls.add(call)
        return True

    def dismiss(self, call: Call[Any]) -> None:
        """It has ended."""
        self._calls.discard(call)
        if not self._calls:
            self.vacant.set()

    def gone(self) -> NotStarted:
        """The error for a call that is not carried out (to its end) because the home is closed."""
        failed = self._failure is not None
        told = "the runtime failed and is not running any more" if failed else "the manager was stopped"
        error = NotStarted(told)
        error.__cause__ = self._failure
        return error

    def abandon(self, failure: BaseException | None) -> None:
        """The trio run is over: tell those who do not know yet. Called in its thread."""
        self._shut(failure)  # there is nobody left to be cancelled
        self._bag.empty()
        for call in tuple(self._calls):
            call.give_up()

    def _shut(self, failure: BaseException | None) -> bool:
        if self._closed:
            return False
        self._closed = True
        self._failure = failure
        return True

    # --- anywhere -------------------------------------------------------------------------------------------

    @property
    def is_here(self) -> bool:
        """Whether the present task runs in this trio run."""
        # A thread has one trio run at a time, but it can have an event loop of asyncio as well, whose guest it is.
        return get_ident() == self._thread and in_trio_task()

    def post(self, call: Callable[[], None]) -> None:
        """Have the trio run call this soon, in order.

        Raises:
            NotStarted: It is over; no call is being carried out any more.
        """
        try:
            self._bag.put(call)
        except trio.RunFinishedError:
            raise self.gone() from self._failure

    def side(self) -> CallerContext:
        """The side of the present task, which runs elsewhere: in an event loop of asyncio or in another trio run."""
        return TrioCaller() if in_trio_task() else self._side_of(asyncio.get_running_loop())

    def queue_for(self, loop: asyncio.AbstractEventLoop) -> CallQueue:
        """The one bag that brings calls to this loop."""
        return self._side_of(loop).bag

    def _side_of(self, loop: asyncio.AbstractEventLoop) -> AsyncioCaller:
        side = self._loops.get(loop)
        if side is None:
            for old in [old for old in tuple(self._loops) if old.is_closed()]:
                self._loops.pop(old, None)
            side = self._loops.setdefault(
                loop, AsyncioCaller(loop, CallQueue(partial(self._wake_loop, loop, _waker(loop))))
            )
        return side

    async def run(
        self, function: Callable[[], Awaitable[T]], undo: Undo[T] | None = None, *, together: bool = False
    ) -> T:
        """Call it in the trio run, from a task elsewhere; cancelling that cancels the call, and waits for its end.

        Args:
            function: Is called in the trio run, in the context of the caller.
            undo: Is called there with a result that comes too late for a caller who was cancelled.
            together: Whether it waits for the end of this turn of the caller's loop, to go with others like it.

        Raises:
            NotStarted: It is not carried out, or not to its end.
            BaseException: What it raised.
        """
        side = self.side()
        wait = side.wait()
        call = Call(self, function, wait.notify)
        if together:
            side.send(call)
        else:
            call.send()
        cancelled = await wait.until_notified(call.cancel)
        if cancelled is not None and undo is not None and isinstance(call.outcome, outcome.Value):
            value = call.outcome.value
            try:
                with suppress(NotStarted):  # what is to be undone has ended together with the home
                    await self._carry_through(lambda: undo(value))
            except Exception as error:
                raise_cancellation(cancelled, error)
                raise
        return unwrap(call.outcome, cancelled)

    async def _carry_through(self, function: Callable[[], Awaitable[object]]) -> None:
        """Call it, whatever happens to the caller meanwhile."""
        wait = self.side().wait()
        call = Call(self, function, wait.notify)
        call.send()
        await wait.until_notified(lambda: None)
        unwrap(call.outcome, None)

    def run_from_thread(self, function: Callable[[], Awaitable[T]], undo: Undo[T] | None = None) -> T:
        """As `run`, from a thread, which is blocked meanwhile. Ctrl-C is its way of being cancelled."""
        call, interrupted = self._block(function)
        if interrupted is not None and undo is not None and isinstance(call.outcome, outcome.Value):
            value = call.outcome.value
            try:
                with suppress(NotStarted):  # as in `run`
                    undoing, _ = self._block(lambda: undo(value), heeds=False)
                    unwrap(undoing.outcome, None)
            except Exception as error:
                raise_cancellation(interrupted, error)
                raise
        return unwrap(call.outcome, interrupted)

    def _block(
        self, function: Callable[[], Awaitable[T]], *, heeds: bool = True
    ) -> tuple[Call[T], BaseException | None]:
        """Call it from a thread; the call, which has ended, and what the thread was interrupted with meanwhile.

        Args:
            function: What to call.
            heeds: Whether an interruption cancels it.
        """
        wait = ThreadWait()
        call = Call(self, function, wait.notify)
        return call, wait.block(call.send, call.cancel if heeds else lambda: None)

    def _wake_loop(self, loop: asyncio.AbstractEventLoop, wake: Waker, deliver: Callable[[], None]) -> None:
        """Wake a loop. Where the trio run does it, all who are at it have their turn first: one wake-up for them."""
        if self._token is not None and get_ident() == self._thread and not loop.is_closed():
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(_wake_late, wake, deliver)
                return
        wake(deliver)

    def _wake(self, deliver: Callable[[], None]) -> None:
        if self._token is not None:
            self._token.run_sync_soon(deliver)
        elif self._closed:
            raise trio.RunFinishedError  # it ended before it was opened


def _wake_late(wake: Waker, deliver: Callable[[], None]) -> None:
    try:
        wake(deliver)
    except RuntimeError as error:
        warn_of_closed_loop(error)


def _waker(loop: asyncio.AbstractEventLoop) -> Waker:
    """Has a loop call something soon, in a context in which anyio and its like know which loop that is.

    They look for the task that runs, and in a plain callback there is none: a claim's holder that sets the deadline of
    its cancel scope there could not ask for the time.
    """
    context = Context()  # and not a copy of the first caller's, which would be kept for as long as the loop is
    context.run(sniffio.current_async_library_cvar.set, "asyncio")
    return partial(loop.call_soon_threadsafe, context=context)


def unwrap(result: outcome.Outcome[T] | None, cancelled: BaseException | None) -> T:
    """Return the result of a finished call, or raise the call's error or the caller's cancellation.

    The call's error is raised even if trio has cancelled the caller, so that the error is not lost.
    `raise_cancellation` gives asyncio's cancellation and Ctrl-C precedence.
    """
    try:
        if cancelled is not None:
            if not isinstance(result, outcome.Error):
                raise cancelled
            raise_cancellation(cancelled, result.error)
        assert result is not None  # noqa: S101 - only a cancelled caller's call ends without
        return result.unwrap()
    finally:
        del result, cancelled  # they refer to this frame, which refers to them


def raise_cancellation(cancelled: BaseException | None, error: BaseException | None) -> None:
    """Where both happened to a caller, raise what he was cancelled with, unless he will meet it again anyway.

    A scope of trio's cancels at every checkpoint until it is left. Asyncio cancels once, and Ctrl-C comes once: a
    caller who deals with the error, and tries again, would never be ended.
    """
    try:
        if cancelled is None or isinstance(cancelled, trio.Cancelled) or not isinstance(error, Exception):
            return
        if not isinstance(error, NotStarted):  # that would be no news to whoever is cancelled
            _log.warning("a call of a caller who was cancelled ended with an error: %r", error)
        raise cancelled from error
    finally:
        del cancelled, error  # they refer to this frame
