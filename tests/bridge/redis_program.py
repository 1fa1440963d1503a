"""An asyncio program on Redis; run as a process of its own by `test_bridge_redis`, with the server's URL."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import uvloop

from bridge.test_bridged_facade import register, use_everything
from bridge.test_sync import use_everything as use_everything_blocking
from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.storage.redis import RedisStorage


async def main(url: str, prefix: str) -> None:
    manager = BackgroundOperationsManager(RedisStorage(redis_url=url, prefix=prefix))
    register(manager)
    async with manager:
        await use_everything(manager)
        handles: list[Any] = await asyncio.gather(
            *(
                manager.start_saga(tenant_id="t", workflow_type="w", steps=[{"name": "A", "operation": "work"}])
                for _ in range(100)
            )
        )
        outcomes = await asyncio.gather(*(handle.result() for handle in handles))
        assert all(outcome.status == "completed" for outcome in outcomes)


async def from_a_thread(url: str) -> None:
    manager = BackgroundOperationsManager(RedisStorage(redis_url=url, prefix="threads"))
    register(manager)
    async with manager:
        await asyncio.to_thread(use_everything_blocking, manager.sync)


if __name__ == "__main__":
    # One of the handlers fails for good, which is logged with its traceback.
    logging.getLogger("dotmac.tasks.runtime.attempt").setLevel(logging.ERROR)
    (server,) = sys.argv[1:]
    plain_loop = asyncio.new_event_loop
    for loop_number in range(2):
        asyncio.run(main(server, f"asyncio{loop_number}"))
    uvloop.run(main(server, "uvloop"))
    asyncio.run(from_a_thread(server))
    # Asyncio is the program's own, and is as it was.
    assert "trio_asyncio" not in sys.modules
    assert asyncio.new_event_loop is plain_loop
