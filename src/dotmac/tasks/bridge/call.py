"""One call into a trio run, on behalf of somebody outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Generic, TypeVar

import outcome
import trio

from ..errors import NotStarted
from .identity import act_for, current_caller
from .virtual_time import held_clock

if TYPE_CHECKING:
    from .runtime_loop import RuntimeLoop
    from .task_pool import PoolTask

T = TypeVar("T")


class Call(Generic[T]):
    """Made by the caller, in his context; carried out in a task of the trio run (see `PoolTask`).

    Args:
        home: The trio run.
        function: What is called there.
        notify: Told when the call has ended; from the trio thread.

    Attributes:
        notify: The same.
        context: Of the caller.
        ended: Whether it has.
        outcome: How; None if it was cancelled.
    """

    __slots__ = (
        "_begun",
        "_caller",
        "_cancelled",
        "_carrier",
        "_function",
        "_hold",
        "_home",
        "context",
        "ended",
        "notify",
        "outcome",
    )

    def __init__(self, home: RuntimeLoop, function: Callable[[], Awaitable[T]], notify: Callable[[], None]) -> None:
        self._home = home
        self._function = function
        self._caller = current_caller()
        self._hold = held_clock.get()
        self._carrier: PoolTask | None = None
        self._begun = False
        self._cancelled = False
        self.notify = notify
        self.context = copy_context()
        self.ended = False
        self.outcome: outcome.Outcome[T] | None = None

    # --- outside --------------------------------------------------------------------------------------------

    def send(self) -> None:
        """Have it carried out; once, even if this is called again because it was interrupted.

        Raises:
            NotStarted: The trio run is over.
        """
        self._home.post(self._begin)

    def cancel(self) -> None:
        """Cancel it, wherever it is; it still ends by itself."""
        with suppress(NotStarted):  # then it has ended
            self._home.post(self._cancel)

    # --- in the trio run ------------------------------------------------------------------------------------

    def close(self) -> None:
        """The home is closed."""
        if self._carrier is not None and not self.ended:
            self._carrier.cancel()

    def give_up(self) -> None:
        """The trio run is over without having ended it."""
        self._end(outcome.Error(self._home.gone()))

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        if not self._home.admit(self):
            self.give_up()
            return
        if self._hold is not None:
            self._hold.pause()
        self._carrier = self._home.carriers.carry(self)
        if self._cancelled:
            self._carrier.cancel()

    def _cancel(self) -> None:
        self._cancelled = True
        if self._carrier is not None and not self.ended:  # else it carries another call by now
            self._carrier.cancel()

    def carry_out(self) -> Awaitable[T]:
        """See `Job`."""
        act_for(self._caller)
        return self._function()

    def over(self, result: outcome.Outcome[T] | None) -> None:
        """See `Job`."""
        if result is None:
            self._end(None if self._cancelled else outcome.Error(self._home.gone()))
        elif isinstance(result, outcome.Error) and isinstance(result.error, trio.Cancelled):
            self._end(outcome.Error(self._home.gone()))  # the whole run is
        else:
            self._end(result)

    def _end(self, result: outcome.Outcome[T] | None) -> None:
        self.outcome = result
        self.ended = True
        if self._hold is not None:
            self._hold.resume()
        self._home.dismiss(self)
        self.notify()
