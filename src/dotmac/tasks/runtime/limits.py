"""How long one attempt may take: its own time-out, which a heartbeat starts again, under the saga's deadline."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from threading import get_ident

import trio

from ..saga.views import utc


class AttemptLimit:
    """Keeps the deadline of an attempt's scope.

    Deadlines are facts of the storage's clock, scopes live on trio's; what is left is carried over, so the two
    need not agree on anything but the length of a second.

    Args:
        scope: What the handler runs in; its deadline is kept here for as long as the attempt lasts.
        now: The storage's clock.
        timeout: Seconds from the start or the last heartbeat; None: no limit.
        saga_deadline: Unix seconds; None: no limit.

    Attributes:
        scope: The same.
        limited: Whether there is a deadline at all.
        saga_ends_first: Whether the scope's deadline is the saga's rather than the attempt's own.
    """

    __slots__ = ("_now", "_saga_deadline", "_thread", "_timeout", "_token", "limited", "saga_ends_first", "scope")

    def __init__(
        self, scope: trio.CancelScope, now: Callable[[], float], timeout: float | None, saga_deadline: float | None
    ) -> None:
        self.scope = scope
        self._now = now
        self._timeout = timeout
        self._saga_deadline = saga_deadline
        self.saga_ends_first = False
        self.limited = timeout is not None or saga_deadline is not None
        if self.limited:
            self._thread = get_ident()
            self._token = trio.lowlevel.current_trio_token()
            scope.deadline = self._ends_at()

    @property
    def deadline(self) -> datetime | None:
        """When the attempt will be cut off unless it ends or beats; None: never."""
        if not self.limited:
            return None
        return utc(self._now() + self.scope.deadline - trio.current_time())

    def beat(self, tell: Callable[[datetime | None], None]) -> None:
        """Start the attempt's own time-out again. From another thread it is done there as soon as trio comes round.

        Args:
            tell: Called with the new deadline, in the trio run.
        """
        if not self.limited:
            return
        if get_ident() == self._thread:
            self._beat(tell)
        else:
            with suppress(trio.RunFinishedError):  # the attempt was cut off with its run
                self._token.run_sync_soon(self._beat, tell)

    def _beat(self, tell: Callable[[datetime | None], None]) -> None:
        if self.limited:
            self.scope.deadline = self._ends_at()
            tell(self.deadline)

    def lift(self) -> None:
        """The attempt is over: whatever else runs in the scope has no deadline, and no late heartbeat gives it one."""
        if self.limited:
            self.scope.deadline = math.inf
            self.limited = False

    def _ends_at(self) -> float:
        """By trio's clock."""
        own = math.inf if self._timeout is None else self._timeout
        saga = math.inf if self._saga_deadline is None else self._saga_deadline - self._now()
        self.saga_ends_first = saga <= own and saga != math.inf
        return trio.current_time() + max(min(own, saga), 0.0)
