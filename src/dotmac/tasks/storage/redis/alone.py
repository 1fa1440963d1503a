"""A caller who is alone on a link, and what it can be spared.

To wake the writer, and to be woken by the reader, takes longer than a server of the same machine takes to answer. So
who is the only caller writes by itself. Who called last as well looks for the reply too, for a moment: a processor
that falls asleep meanwhile takes as long to wake up as all the rest of the call. (Of many tasks each would look, and
none would find others to share a write with.)
"""

from __future__ import annotations

import time

import trio

from .calls import Call
from .session import Session

_PATIENCE = 0.0003  # seconds; longer would be felt by others, and what takes longer is no neighbour
_TURN = 0.001  # seconds after which others have theirs
_BEFORE = 4  # calls in a row that show that nobody else calls meanwhile
_MOST_PASSED = 1024


class LoneCaller:
    """Knows who called last, and whether it pays to look."""

    __slots__ = ("_last", "_others_at", "_pass", "_passed", "_row")

    def __init__(self) -> None:
        self._last = 0
        self._row = 0
        self._others_at = 0.0
        self._pass = 0
        self._passed = 1

    def ask(self, session: Session, call: Call, task: trio.lowlevel.Task) -> bool:
        """Send the call of this task, which is the only one; whether its reply was found."""
        patience = self._patience(task)
        found = session.ask(call, patience)
        if patience:
            # The more often in a row it did not come, the more calls pass before the next look.
            self._passed = 1 if found else min(2 * self._passed, _MOST_PASSED)
            self._pass = 0 if found else self._passed
        return found

    def _patience(self, task: trio.lowlevel.Task) -> float:
        """Seconds for which this task, which calls now, looks for the reply; 0: not at all."""
        if id(task) != self._last:
            self._last, self._row = id(task), 0
        self._row += 1
        if self._row <= _BEFORE:
            return 0.0
        if self._pass:
            self._pass -= 1
            return 0.0
        return _PATIENCE

    async def let_others(self) -> None:
        """To be called after each reply that was found."""
        if time.perf_counter() - self._others_at > _TURN:
            await trio.lowlevel.cancel_shielded_checkpoint()
            self._others_at = time.perf_counter()
