"""A program of both hosts on Redis: trio first, then asyncio, then each at once. Run by `test_bridge_redis`."""

from __future__ import annotations

import asyncio
import sys
from functools import partial

import trio

from bridge.test_bridged_facade import register, use_everything
from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.storage.redis import RedisStorage


async def main(url: str, prefix: str) -> None:
    manager = BackgroundOperationsManager(RedisStorage(redis_url=url, prefix=prefix))
    register(manager)
    async with manager:
        await use_everything(manager)


async def with_asyncio_beside(url: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(main, url, "trio-at-once")
        nursery.start_soon(trio.to_thread.run_sync, partial(asyncio.run, main(url, "asyncio-at-once")))


if __name__ == "__main__":
    (server,) = sys.argv[1:]
    trio.run(main, server, "trio")
    assert "trio_asyncio" in sys.modules  # what this is about
    asyncio.run(main(server, "asyncio"))
    trio.run(with_asyncio_beside, server)
