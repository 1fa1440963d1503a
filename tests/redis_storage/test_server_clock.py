"""The server's time, as a process knows it: never ahead, so that nobody's lease is taken for over while it holds."""

from __future__ import annotations

from uuid import uuid4

import pytest

from dotmac.tasks.storage.records import MICROSECONDS, fence_at
from dotmac.tasks.storage.redis import RedisStorage
from storage.stored import LONG, adoption, claim, entry, head, put_saga
from support.servers import Server, standalone

pytestmark = pytest.mark.redis


def _time_of(server: Server) -> float:
    seconds, micro = server.cli("TIME")
    return int(seconds) + int(micro) / 1e6


async def test_a_server_that_answers_late_puts_no_clock_ahead() -> None:
    with standalone(aof=True) as server:
        storage = RedisStorage(server.url, prefix=f"test-{uuid4().hex[:8]}")
        async with storage.opened():
            await storage.register_worker("w1", LONG, {})
            server.cli("CLIENT", "PAUSE", "1000", "ALL")
            await storage.renew_worker("w1", LONG)
            known = storage.now()
            assert known <= _time_of(server)


async def test_the_stamps_of_a_journal_and_of_claims_rise_although_the_clock_went_back() -> None:
    with standalone(aof=True) as server:
        prefix = f"test-{uuid4().hex[:8]}"
        storage = RedisStorage(server.url, prefix=prefix, partitions=1)
        async with storage.opened():
            meta = await put_saga(storage, owner="w1")
            (saga,) = [key for key in server.cli("KEYS", f"*{meta.saga_id}*") if server.cli("TYPE", key) == "hash"]
            ahead = int((_time_of(server) + 3600) * MICROSECONDS)  # written before the clock was set back by an hour
            server.cli("HSET", saga, "ua", str(ahead))
            wrote = await storage.append(entry(meta))
            assert wrote.at is not None
            assert fence_at(wrote.at) == ahead + 1
            record = await storage.adopt_saga(adoption(await head(storage, meta.saga_id)))
            assert fence_at(record.meta.updated_at) == ahead + 2

            await claim(storage, by="a", lease=0.01)
            hashes = [key for key in server.cli("KEYS", "*") if server.cli("TYPE", key) == "hash"]
            (key,) = [key for key in hashes if server.cli("HEXISTS", key, "cl") == 1]
            server.cli("HSET", key, "cl", str(ahead), "lu", "0")
            assert fence_at((await claim(storage, by="b")).record.claimed_at) == ahead + 1
