"""Keeps a virtual clock from jumping while a thread works outside of its trio run.

With `trio.testing.MockClock` and an autojump threshold, time jumps to the next deadline once all tasks are blocked. A
task that waits for a thread is blocked, so the time-out of a thread's work would come at once. A task in
`wait_all_tasks_blocked` prevents the jump, as trio documents.

The clock stands still for as many real seconds as the work may take in virtual ones, `MOST` at most; then it jumps as
before, so work that hangs has its time-out. While the thread itself waits for a call into the trio run, time can pass.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from threading import get_ident
from types import TracebackType

import trio

MOST = 10.0
"""Real seconds that the clock stands still for one piece of work."""

_LOOK = 0.001  # real seconds between two looks whether the work goes on
_NOTHING: AbstractContextManager[object] = nullcontext()
_standstills: trio.lowlevel.RunVar[_Standstill | None] = trio.lowlevel.RunVar("dotmac.tasks standstill", None)
held_clock: ContextVar[ClockHold | None] = ContextVar("dotmac.tasks.bridge.held_clock", default=None)
"""What holds the clock for the work that the present code is a part of."""


def hold_clock() -> AbstractContextManager[object]:
    """Hold an autojumping clock while inside. With any other clock it does nothing."""
    testing = sys.modules.get("trio.testing")  # not imported: then there is no such clock
    if testing is None or not isinstance(trio.lowlevel.current_clock(), testing.MockClock):
        return _NOTHING
    standstill = _standstills.get()
    if standstill is None:
        standstill = _Standstill()
        _standstills.set(standstill)
    return ClockHold(standstill)


class ClockHold:
    """One piece of work outside of the trio run; entered and left there."""

    def __init__(self, standstill: _Standstill) -> None:
        self._standstill = standstill
        self._thread = get_ident()
        self._open = False
        self.ends_at = 0.0

    def __enter__(self) -> None:
        self.ends_at = time.monotonic() + min(trio.current_effective_deadline() - trio.current_time(), MOST)
        self._open = True
        self._outer = held_clock.get()
        held_clock.set(self)
        self._standstill.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        held_clock.set(self._outer)  # and no reset: a coroutine can be closed in another context
        self._standstill.remove(self)

    def pause(self) -> None:
        """The work waits for a call into a trio run, in which this is called."""
        if get_ident() == self._thread:
            self._standstill.remove(self)

    def resume(self) -> None:
        """The call has ended."""
        if self._open and get_ident() == self._thread:
            self._standstill.add(self)


class _Standstill:
    """The holds of one trio run, and the task that keeps the clock from jumping while there are any."""

    def __init__(self) -> None:
        self._holds: set[ClockHold] = set()
        self._keeping = False

    def add(self, hold: ClockHold) -> None:
        self._holds.add(hold)
        if not self._keeping:
            self._keeping = True
            trio.lowlevel.spawn_system_task(self._keep, name="dotmac.tasks standstill")

    def remove(self, hold: ClockHold) -> None:
        self._holds.discard(hold)

    async def _keep(self) -> None:
        from trio.testing import wait_all_tasks_blocked  # noqa: PLC0415 - of tests only

        try:
            while self._holds:
                await wait_all_tasks_blocked(_LOOK)
                now = time.monotonic()
                self._holds = {hold for hold in self._holds if now < hold.ends_at}
        finally:
            self._keeping = False
