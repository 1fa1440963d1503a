"""Looking for something in the storage until it is there: a message tells when to look again, if it comes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from ..errors import EnvironmentFault
from ..storage.protocol import StorageProtocol

T = TypeVar("T")


async def look_or_wait(
    storage: StorageProtocol, topic: str, look: Callable[[], Awaitable[T | None]], seconds: float
) -> T | None:
    """What `look` finds; or None, once there is reason to look again.

    Args:
        storage: Where messages come from.
        topic: Listened to from before the look, so that nothing is missed between the two.
        look: Tells by itself what there is; nothing is decided by a message. May be called twice.
        seconds: To wait for a message, which can get lost, or which no connection can be had for.

    Raises:
        EnvironmentFault: Looking fails too.
    """
    try:
        async with storage.watch(topic) as news:
            found = await look()
            if found is None:
                with trio.move_on_after(seconds):
                    await news.wait()
    except EnvironmentFault:
        # Perhaps only messages do not come through. Looking tells, and raises if nothing does.
        found = await look()
        if found is None:
            await trio.sleep(seconds)
    return found
