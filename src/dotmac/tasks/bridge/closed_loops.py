"""Waiting for word out of an event loop that may be closed: it tells nobody then, least of all that it was."""

from __future__ import annotations

from collections.abc import Callable

import trio

_LOOK = 1.0  # seconds between two looks whether the loop is still there


async def wait_or_loop_closed(told: trio.Event, gone: Callable[[], bool]) -> bool:
    """Wait until something is told, or who would tell it is gone.

    Args:
        told: Set by the loop, in the trio thread.
        gone: Whether the loop will run nothing more; asked again and again.

    Returns:
        Whether it was told.
    """
    while not told.is_set():
        if gone():
            return False
        with trio.move_on_after(_LOOK):
            await told.wait()
    return True
