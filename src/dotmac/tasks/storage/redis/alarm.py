"""One timer for the deadlines of all calls of a link.

A cancel scope per call would cost more than the command itself. Here a call compares its deadline with the next
ringing, which it seldom precedes: with equal time-outs, as is usual, the alarm rings once per time-out, however
many calls there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import trio
from trio.lowlevel import enable_ki_protection


class Alarm:
    """Rings at a time that can be set forward.

    Attributes:
        when: The next ringing, on trio's clock.
    """

    __slots__ = ("_scope", "when")

    def __init__(self) -> None:
        self.when = math.inf
        self._scope: trio.CancelScope | None = None

    def advance(self, when: float) -> None:
        """Rings at `when` already; the caller has seen that this is earlier."""
        self.when = when
        if self._scope is not None:
            self._scope.deadline = when

    @enable_ki_protection
    async def keep_ringing(self, ring: Callable[[], float]) -> None:
        """Calls `ring` at each ringing; it returns the time of the next. Ends only by cancellation."""
        while True:
            with trio.CancelScope(deadline=self.when) as self._scope:
                await trio.sleep_forever()
            # Nothing can set the alarm in between: there is no await from here to the next scope.
            self.when = ring()
