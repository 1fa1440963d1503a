"""Shortcuts of the wire's tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from dotmac.tasks.storage.redis.gateway import RedisClient, open_client
from dotmac.tasks.storage.redis.options import RedisOptions
from dotmac.tasks.storage.redis.script import Script

#: Answers what it was asked, so that a reply that went astray is seen; counts its runs under a key.
ECHO = Script("echo", "redis.call('INCR', KEYS[1]) return ARGV[1]")


def client_of(url: str, **settings: Any) -> AbstractAsyncContextManager[RedisClient]:
    return open_client(RedisOptions.from_url(url, **settings))


async def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Polls until the condition holds; fails when it does not within `seconds`."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - states of other processes have no event
            await trio.sleep(0.005)


async def at_rest(client: RedisClient) -> None:
    """Waits until no call is queued or unanswered: nothing leaked."""
    await eventually(lambda: all(link.queued == link.unanswered == 0 for link in client.status()))
