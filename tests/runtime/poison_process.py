"""A worker whose handler ``poison`` ends the process: ``python -m runtime.poison_process URL PREFIX MAX_LOSSES``."""

from __future__ import annotations

import os
import sys
from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.storage.redis import RedisStorage


def register(manager: BackgroundOperationsManager) -> None:
    @manager.register_operation_handler("poison")
    async def poison(_parameters: Any) -> None:
        os._exit(70)

    @manager.register_operation_handler("work")
    async def work(parameters: dict[str, Any]) -> None:
        await trio.sleep(parameters["seconds"])


async def main(*words: str) -> None:
    url, prefix, max_losses = words
    storage = RedisStorage(url, prefix=prefix, partitions=1)
    manager = BackgroundOperationsManager(storage=storage, worker_lease=3, max_worker_losses=int(max_losses))
    register(manager)
    async with manager:
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
