"""What locks leave in Redis, and what becomes of answers that are lost."""

from __future__ import annotations

from uuid import uuid4

import pytest
import trio

from dotmac.tasks.errors import LockLost
from dotmac.tasks.storage.redis import RedisStorage
from storage.stored import lock
from support.proxy import Fault, FaultProxy
from support.servers import Server

pytestmark = pytest.mark.redis
DAY = 86_400.0


def _storage(url: str) -> RedisStorage:
    return RedisStorage(url, prefix=f"test-{uuid4().hex[:8]}", partitions=1)


async def test_a_release_whose_answer_is_lost_is_no_lost_lock(server: Server) -> None:
    async with FaultProxy((server.host, server.port)) as proxy:
        storage = _storage(proxy.url)
        async with storage.opened():
            assert await storage.acquire_lock("warm", 60.0)  # the server knows both scripts from here on
            await storage.release_lock("warm")
            assert await storage.acquire_lock("lock", 60.0)
            proxy.script(Fault.LOSE_REPLY)
            await storage.release_lock("lock")
            assert Fault.LOSE_REPLY in proxy.history
            with pytest.raises(LockLost):
                await storage.release_lock("lock")
            assert await storage.acquire_lock("lock", 60.0)


async def test_a_lock_whose_answer_was_lost_for_good_is_given_up(server: Server) -> None:
    async with FaultProxy((server.host, server.port)) as proxy:
        storage = _storage(proxy.url)
        async with storage.opened():
            with trio.CancelScope() as scope:
                scope.cancel()
                await storage.acquire_lock("lock", 60.0)
            assert scope.cancelled_caught
            assert await storage.acquire_lock("lock", 60.0)


async def test_who_waits_does_not_shorten_the_life_of_a_lock(server: Server) -> None:
    """Gone before its lease is over, it would be granted a second time."""
    storage = _storage(server.url)
    async with storage.opened():
        await storage.request_lock(lock("a", lease=3 * DAY))
        key = storage.layout.of_key("lock").lock("lock")[0]
        await storage.request_lock(lock("b", wait=5.0))
        assert server.cli("PTTL", key) > 3 * DAY * 1000


async def test_locks_that_nobody_gave_up_are_forgotten(server: Server) -> None:
    storage = _storage(server.url)
    async with storage.opened():
        for number in range(20):
            await storage.request_lock(lock("a", name=f"lock {number}", lease=0.01))
        await trio.sleep(0.1)
        await storage.purge(10)
        assert server.cli("ZCARD", storage.layout.partitions[0].held) == 0
