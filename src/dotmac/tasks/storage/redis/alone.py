"""A caller who is alone on a link, and what it can be spared.

To wake the writer, and to be woken by the reader, takes longer than a server of the same machine takes to answer. So
who is the only caller writes by itself. Who called last as well looks for the reply too: writing to such a server may
give that its turn, and then the reply has come before we are back. (Of many tasks each would look, and none would
find others to share a write with.)
"""

from __future__ import annotations

import trio

_PER_TURN = 4
"""A turn of the scheduler costs as much as a reply that is there at once: others have theirs after every so many."""


class LoneCaller:
    """Knows who called last."""

    __slots__ = ("_last", "_replies")

    def __init__(self) -> None:
        self._last = 0
        self._replies = 0

    def called_last(self, task: trio.lowlevel.Task) -> bool:
        """Whether this task, which calls now, was the last to call."""
        before, self._last = self._last, id(task)
        return before == self._last

    async def let_others(self) -> None:
        """To be called after each reply that was there at once."""
        self._replies += 1
        if not self._replies % _PER_TURN:
            await trio.lowlevel.cancel_shielded_checkpoint()
