"""A question to an actor and the way back for its answer.

`Ask` is what the actor finds in its inbox; `Reply` is a place for exactly one answer and one task that waits for it.
It is far lighter than a channel: four slots, and no allocation for waiting but the bound method that trio calls back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

Q = TypeVar("Q")
R = TypeVar("R")


class Reply(Generic[R]):
    """Where the answer to one question goes.

    The first answer counts. A later one, or one that nobody waits for any more (the asking task was cancelled, ran
    out of time, or was told that the actor died) is dropped: the actor cannot know, and need not.
    """

    __slots__ = ("_error", "_settled", "_task", "_value")

    def __init__(self) -> None:
        self._settled = False
        self._value: R | None = None
        self._error: Exception | None = None
        self._task: trio.lowlevel.Task | None = None

    def send(self, value: R) -> None:
        """Answer the question. Never blocks, never fails."""
        if not self._settled:
            self._value = value
            self._settle()

    def fail(self, error: Exception) -> None:
        """Answer with an error, which is raised where the question was asked. Never blocks.

        Raises:
            TypeError: The error is no `Exception`. A `Cancelled` raised in another task would break that task's scopes.
        """
        _require_exception(error)
        if not self._settled:
            self._error = error
            self._settle()

    def _settle(self) -> None:
        self._settled = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> R | None:
        """Wait for the answer (a checkpoint). For the one task that asked.

        An answer that is there wins over a cancellation that comes after it: once the task has been rescheduled
        trio does not cancel this wait any more, so an answer is either received or known to be unwanted.
        """
        if self._settled:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abandon)
        if self._error is None:
            return self._value
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error  # the traceback refers to this frame: without this, frame and error would keep each other alive

    def _abandon(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._task = None
        self._settled = True  # from here on, answers are dropped
        return trio.lowlevel.Abort.SUCCEEDED


def _require_exception(error: BaseException) -> None:
    if not isinstance(error, Exception):
        raise TypeError(f"an answer can be an Exception, not {type(error).__name__}")


@dataclass(frozen=True, slots=True, eq=False)
class Ask(Generic[Q, R]):
    """A question in an inbox: what is asked, and where the answer goes."""

    request: Q
    reply: Reply[R]
