"""Many tasks of two processes' managers count in Redis under a lock, each write guarded by the lock's fence."""

from __future__ import annotations

import tempfile
from typing import Any

import redis
import trio

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.fences import fenced_set, require_current
from dotmac.tasks.storage.embedded import EmbeddedServer
from dotmac.tasks.storage.redis import RedisStorage


async def ask(client: redis.Redis, *command: str | bytes | int) -> Any:
    return await trio.to_thread.run_sync(client.execute_command, *command)


async def count(manager: BackgroundOperationsManager, client: redis.Redis) -> None:
    async with manager.lock("counter") as held:
        value = int(await ask(client, "GET", "counter") or 0)
        written = await ask(client, *fenced_set("counter", str(value + 1), held.fence))
        require_current(written, "the counter", held.fence)


async def main(folder: str) -> None:
    async with (
        EmbeddedServer(folder) as server,
        BackgroundOperationsManager(storage=RedisStorage(server.url)) as one,
        BackgroundOperationsManager(storage=RedisStorage(server.url)) as two,
    ):
        client = redis.Redis.from_url(server.url)
        async with trio.open_nursery() as nursery:
            for _ in range(25):
                nursery.start_soon(count, one, client)
                nursery.start_soon(count, two, client)
        print(f"50 tasks counted to {int(await ask(client, 'GET', 'counter'))}")
        late = await ask(client, *fenced_set("counter", "0", 1))
        print(f"a write under an old fence is carried out: {bool(late)}")
        client.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, folder)
