"""A context that is entered and left in a trio run, by one task, while its body runs elsewhere.

If the inside is cancelled there, the body is cancelled where it runs, and waited for. How the body ended is told the
context as if it had run inside: its error is raised there. What the context makes of it is raised by the body's caller.

A body whose event loop was closed will never end, nor do anything more: the context is left without it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, TypeVar

import outcome
import trio

from ..errors import InternalError, NotStarted
from .asyncio_calls import wait_or_loop_closed
from .call import Call
from .runtime_loop import RuntimeLoop, raise_cancellation, unwrap

T = TypeVar("T")
Opening = Callable[[], AbstractAsyncContextManager[T]]

_log = logging.getLogger(__name__)


class Stay(Call[None], Generic[T]):
    """The task inside.

    Args:
        home: The trio run.
        opening: Makes the context.
        notify: Told when it is entered, or has ended.
        cancel_body: Told when the inside is cancelled; all in the trio thread.
        gone: Whether the body cannot run any more; asked there.

    Attributes:
        entered: Whether the context was.
        value: What it gave.
        clock_offset: To be added to a time of this trio run's clock, to have one of ``time.monotonic()``.
        deaf: Whether it listens no more to how the body ends.
        missed: Whether it was told too late.
        cut: Set when the body has been told that it is cancelled, or the stay has ended.
    """

    __slots__ = (
        "_cancel_body",
        "_error",
        "_gone",
        "_left",
        "_opening",
        "_unfinished",
        "clock_offset",
        "cut",
        "deaf",
        "entered",
        "missed",
        "value",
    )

    def __init__(
        self,
        home: RuntimeLoop,
        opening: Opening[T],
        notify: Callable[[], None],
        *,
        cancel_body: Callable[[], None] = lambda: None,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(home, self._be_inside, notify)
        self._opening = opening
        self._cancel_body = cancel_body
        self._gone = gone
        self._left = trio.Event()
        self._error: BaseException | None = None
        self._unfinished = False
        self.cut = trio.Event()
        self.entered = False
        self.deaf = False
        self.missed = True
        self.clock_offset = 0.0
        self.value: T

    def leave(self, error: BaseException | None, notify: Callable[[], None], *, unfinished: bool) -> None:
        """The body has ended. Called in the trio thread; again does nothing.

        Args:
            error: What it raised, if that was an error of its own.
            notify: Told when the stay has ended.
            unfinished: Whether it was cancelled.
        """
        if self.notify == notify:  # a thread was interrupted while it told us, and made sure
            return
        self.notify = notify
        self.missed = self.deaf
        self._error, self._unfinished = error, unfinished
        self._left.set()
        if self.ended:
            notify()

    def close(self) -> None:
        """The home is closed: a body that was cancelled and has not ended yet is not waited for."""
        if self.cut.is_set():
            self._unfinished = True
        else:
            super().close()
        self._left.set()

    async def _be_inside(self) -> None:
        try:
            async with self._opening() as self.value:
                self.clock_offset = time.monotonic() - trio.current_time()
                self.entered = True
                self.notify()
                await self._until_left()
                if self._unfinished:
                    await trio.lowlevel.checkpoint_if_cancelled()
                if self._error is not None:
                    raise self._error
        finally:
            self.deaf = True
            self.cut.set()
            self._error = None  # it refers to this frame

    async def _until_left(self) -> None:
        try:
            await self._until_told_or_gone()
        except trio.Cancelled:
            self.cut.set()
            self._cancel_body()
            with trio.CancelScope(shield=True):
                await self._until_told_or_gone()
        self.deaf = True

    async def _until_told_or_gone(self) -> None:
        if not await wait_or_loop_closed(self._left, self._gone):
            _log.warning("an event loop was closed in the midst of a block: what the block held is given back")


class RemoteContext(Generic[T]):
    """The context, as the body's caller enters and leaves it.

    Args:
        home: The trio run.
        opening: Makes the context, there.
        adapt: Makes what the body gets of what the context gave.

    Attributes:
        home: The trio run.
        scope: Of the body.
        stay: The task inside.
    """

    def __init__(self, home: RuntimeLoop, opening: Opening[T], adapt: Callable[[T, RemoteContext[T]], T]) -> None:
        self.home = home
        self._side = home.side()
        self._adapt = adapt
        self._first = self._side.wait()
        self.scope = self._side.scope()
        self.stay = Stay(
            home,
            opening,
            self._first.notify,
            cancel_body=lambda: self._side.post(self.scope.cancel),
            gone=lambda: self._side.gone,
        )

    async def __aenter__(self) -> T:
        stay = self.stay
        stay.send()
        cancelled = await self._first.until_notified(stay.cancel)
        if not stay.ended:
            if cancelled is None and self.scope.enter():
                return self._adapt(stay.value, self)
            again = await self._leave(None, unfinished=True)
            cancelled = cancelled or again
        unwrap(stay.outcome, cancelled)
        raise InternalError("what was cancelled as soon as it was entered ended as if nothing had happened")

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        rest = self.scope.leave(error)
        own = rest if isinstance(rest, Exception) else None
        if rest is not own:  # cancelled from outside
            self.stay.cancel()
        cancelled = await self._leave(own, unfinished=own is None and error is not None)
        try:
            return concluded(self.stay, error, rest, cancelled)
        finally:
            del error, rest, own, cancelled  # they refer to this frame

    async def _leave(self, error: BaseException | None, *, unfinished: bool) -> BaseException | None:
        """Have the context left, and wait for that; what the caller was cancelled with meanwhile."""
        wait = self._side.wait()
        try:
            self.home.post(lambda: self.stay.leave(error, wait.notify, unfinished=unfinished))
        except NotStarted:  # the trio run is over, and so is the stay
            return None
        if self._side.gone:  # the body is thrown away, and its loop was closed before: nothing can be waited for
            return None
        return await wait.until_notified(self.stay.cancel)


def concluded(
    stay: Stay[T], error: BaseException | None, rest: BaseException | None, cancelled: BaseException | None
) -> bool:
    """Raise what a body's caller is to see; if that is nothing new, say whether the body's error is dealt with.

    Args:
        stay: Has ended.
        error: What the body raised.
        rest: The same, without the cancellation that came from the stay.
        cancelled: What the caller was cancelled with while he left.
    """
    failure = stay.outcome.error if isinstance(stay.outcome, outcome.Error) else None
    try:
        if failure is not None and failure is rest:
            failure = None
        elif isinstance(rest, Exception) and not stay.missed:
            rest = None  # the context has dealt with it
        if failure is not None and isinstance(rest, Exception):
            failure = BaseExceptionGroup("the body failed, and so did what it ran inside", [rest, failure])
            rest = None
        if rest is None or isinstance(rest, Exception):
            raise_cancellation(cancelled, failure if rest is None else rest)
        if failure is not None and rest is None:
            raise failure from failure.__cause__
        if rest is None and cancelled is not None:
            raise cancelled
        if rest is not None and rest is not error:
            raise rest
        return rest is None
    finally:
        del failure, error, rest, cancelled  # they refer to this frame
