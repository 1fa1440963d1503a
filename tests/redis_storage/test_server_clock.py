"""The server's time, as a process knows it: never ahead, so that nobody's lease is taken for over while it holds."""

from __future__ import annotations

from uuid import uuid4

import pytest

from dotmac.tasks.storage.redis import RedisStorage
from storage.stored import LONG
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
