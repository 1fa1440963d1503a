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

if TYPE_CHECKING:
    from .home import Home

T = TypeVar("T")


class Call(Generic[T]):
    """Made by the caller, in his context; carried out in a system task of the trio run.

    Args:
        home: The trio run.
        function: What is called there.
        notify: Told when the call has ended; from the trio thread.

    Attributes:
        notify: The same.
        ended: Whether it has.
        outcome: How; None if it was cancelled.
    """

    __slots__ = (
        "_begun",
        "_caller",
        "_cancelled",
        "_context",
        "_function",
        "_home",
        "_scope",
        "ended",
        "notify",
        "outcome",
    )

    def __init__(self, home: Home, function: Callable[[], Awaitable[T]], notify: Callable[[], None]) -> None:
        self._home = home
        self._function = function
        self._context = copy_context()
        self._caller = current_caller()
        self._scope = trio.CancelScope()
        self._begun = False
        self._cancelled = False
        self.notify = notify
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
        self._scope.cancel()

    def give_up(self) -> None:
        """The trio run is over without having ended it."""
        self._end(outcome.Error(self._home.gone()))

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        if self._home.admit(self):
            trio.lowlevel.spawn_system_task(self._run, name=self._function, context=self._context)
        else:
            self.give_up()

    def _cancel(self) -> None:
        self._cancelled = True
        self._scope.cancel()

    async def _run(self) -> None:
        act_for(self._caller)
        result: outcome.Outcome[T] | None = None
        try:
            with self._scope:
                result = outcome.Value(await self._function())
        except trio.Cancelled:
            result = outcome.Error(self._home.gone())  # the whole run is
            raise
        except BaseException as error:
            result = outcome.Error(error)
        finally:
            if result is None and not self._cancelled:
                result = outcome.Error(self._home.gone())
            self._end(result)

    def _end(self, result: outcome.Outcome[T] | None) -> None:
        self.outcome = result
        self.ended = True
        self._home.dismiss(self)
        self.notify()
