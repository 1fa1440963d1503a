"""A program that ends without stopping its manager; run as a process of its own by `test_runtime_thread`.

`python unstopped_program.py KIND FOLDER`: starts a saga whose handler never ends in this process, and ends in some way.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.storage.redis import RedisStorage

SAGA: dict[str, Any] = {"tenant_id": "t", "workflow_type": "w", "steps": [{"name": "A", "operation": "work"}]}


def the_manager(folder: str) -> BackgroundOperationsManager:
    return BackgroundOperationsManager(RedisStorage.embedded(folder), worker_lease=5.0, poll_interval=0.2)


async def _never(parameters: dict[str, Any]) -> None:
    sys.stdout.write("handler\n")
    await asyncio.sleep(600)


def _nothing(parameters: dict[str, Any]) -> None:
    """For a thread."""


async def _start(manager: BackgroundOperationsManager) -> None:
    manager.register_operation_handler("work", _never)
    await manager.start()
    handle = await manager.start_saga(**SAGA)
    sys.stdout.write(f"{handle.saga_id}\n")


def main(kind: str, folder: str) -> None:
    manager = the_manager(folder)
    if kind == "asyncio.run":
        asyncio.run(_start(manager))
    elif kind == "loop left open":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(_start(manager))
    elif kind == "loop closed":
        loop = asyncio.new_event_loop()
        loop.run_until_complete(_start(manager))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.close()
    else:
        manager.register_operation_handler("work", _nothing)
        manager.sync.start()
        sys.stdout.write(f"{manager.sync.start_saga(**SAGA).saga_id}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
