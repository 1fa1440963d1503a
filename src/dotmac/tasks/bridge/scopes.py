"""A block of a caller that can be cancelled from elsewhere, without hiding what else happens to it.

The rules are those of ``asyncio.timeout``: the block's own error stays its own error, and a cancellation from outside,
even in the same moment, goes on.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import trio


class BodyScope(Protocol):
    """The block of a caller. All is called in the caller's thread."""

    def enter(self) -> bool:
        """The block begins; False: it was cancelled before, and must not."""

    def cancel(self) -> None:
        """Cancel the block, if it is entered and not left."""

    def leave(self, error: BaseException | None) -> BaseException | None:
        """The block has ended, with this error; what is left of it without that which `cancel` made."""

    async def checkpoint_if_cancelled(self) -> None:
        """Raise the cancellation if there is one; inside the block."""


class AsyncioScope:
    """A block in a task of asyncio."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._earlier = 0
        self._cancelled = False

    def enter(self) -> bool:
        """See `BodyScope`."""
        if self._cancelled:
            return False
        self._task = asyncio.current_task()
        assert self._task is not None  # noqa: S101 - whoever awaits is a task
        self._earlier = self._task.cancelling()
        return True

    def cancel(self) -> None:
        """See `BodyScope`."""
        if not self._cancelled:
            self._cancelled = True
            if self._task is not None:
                self._task.cancel()

    def leave(self, error: BaseException | None) -> BaseException | None:
        """See `BodyScope`."""
        task, self._task = self._task, None
        if task is None or not self._cancelled:
            return error
        from_outside = task.uncancel() > self._earlier
        return error if from_outside or not isinstance(error, asyncio.CancelledError) else None

    async def checkpoint_if_cancelled(self) -> None:
        """See `BodyScope`."""
        if self._cancelled and self._task is not None:
            raise asyncio.CancelledError


class TrioScope:
    """A block in a task of another trio run."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    def enter(self) -> bool:
        """See `BodyScope`."""
        if self._scope.cancel_called:
            return False
        self._scope.__enter__()
        return True

    def cancel(self) -> None:
        """See `BodyScope`."""
        self._scope.cancel()

    def leave(self, error: BaseException | None) -> BaseException | None:
        """See `BodyScope`."""
        trace = None if error is None else error.__traceback__
        try:
            caught = self._scope.__exit__(type(error) if error is not None else None, error, trace)
        except BaseException as rest:  # a group, less the cancellation
            return rest
        return None if caught else error

    async def checkpoint_if_cancelled(self) -> None:
        """See `BodyScope`."""
        await trio.lowlevel.checkpoint_if_cancelled()
