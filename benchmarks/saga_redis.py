"""What a saga costs on a real server: three steps each, journaled before each effect, beside the bare idea.

Prints, for each durability, sagas per second with 1 and with 100 in flight and how long one saga takes (p50, p99);
beside it the *skeleton*: as many commits of four writes over the same gateway and nothing else, so what is lost
against it is the price of the saga engine. Both run in turn, several rounds, best round printed. At the end, the
memory that a finished saga takes in the server.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.storage.redis import RedisStorage
from dotmac.tasks.storage.redis.gateway import RedisClient, open_client
from dotmac.tasks.storage.redis.options import RedisOptions
from dotmac.tasks.storage.redis.script import Script

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the servers of the tests
from support.servers import standalone

ROUNDS = 3
SAGAS = {1: 300, 100: 3_000}
STEPS = [{"name": name, "operation": "work", "parameters": {"amount": 1}} for name in ("reserve", "charge", "ship")]
SETTINGS = [
    ("appendfsync always", "appendfsync always", "server"),
    ("everysec + WAITAOF", "appendfsync everysec", "fsync"),
    ("appendfsync everysec", "appendfsync everysec", "server"),
]

COMMIT = Script(
    "commit",
    """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and epoch ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'version', ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[3], ARGV[2], KEYS[1])
return 1
""",
)
EVENT = b'[{"e":"attempt_succeeded","step":1,"attempt":1,"result":{"done":true}},{"e":"attempt_started","step":2}]'

Row = tuple[float, float, float]


async def measured(lanes: int, one: Callable[[], Awaitable[None]]) -> Row:
    """Sagas per second, and milliseconds of one saga at p50 and p99."""
    count, took = SAGAS[lanes], list[float]()

    async def lane() -> None:
        for _ in range(count // lanes):
            begin = time.perf_counter()
            await one()
            took.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(lanes):
            nursery.start_soon(lane)
    cuts = statistics.quantiles(took, n=100)
    return len(took) / (time.perf_counter() - begin), 1000 * cuts[49], 1000 * cuts[98]


async def engine(url: str, durability: str, lanes: int) -> Row:
    manager = BackgroundOperationsManager(
        RedisStorage(url, prefix=f"bench-{uuid4().hex[:6]}", durability=durability, socket_timeout=30.0)
    )

    async def work(_parameters: dict[str, Any]) -> dict[str, bool]:
        return {"done": True}

    async def one() -> None:
        handle = await manager.start_saga(tenant_id="bench", workflow_type="order", steps=STEPS)
        assert (await handle.result()).completed

    manager.register_operation_handler("work", work)
    async with manager:
        await one()
        return await measured(lanes, one)


async def skeleton(url: str, lanes: int) -> Row:
    async with open_client(RedisOptions.from_url(url, socket_timeout=30.0)) as client:
        return await measured(lanes, lambda: commits(client))


async def commits(client: RedisClient) -> None:
    tag = uuid4().hex
    keys = [f"{{{tag}}}:s", f"{{{tag}}}:j", f"{{{tag}}}:due"]
    for version in range(len(STEPS) + 1):
        await client.run(COMMIT, keys, ["1", version, EVENT])


async def bytes_per_saga(url: str, count: int = 2_000) -> float:
    async with open_client(RedisOptions.from_url(url)) as client:

        async def used() -> int:
            info: bytes = await client.execute("INFO", "memory")
            return int(info.partition(b"used_memory:")[2].split()[0])

        await client.execute("FLUSHALL")
        before = await used()
        SAGAS[100] = count
        await engine(url, "server", 100)
        return (await used() - before) / count


def main() -> None:
    print(f"{'durability':22}{'in flight':>10}{'':12}{'sagas/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'of skeleton':>13}")
    for title, line, durability in SETTINGS:
        with standalone(line, aof=True) as server:
            for lanes in SAGAS:
                rounds = [
                    (trio.run(engine, server.url, durability, lanes), trio.run(skeleton, server.url, lanes))
                    for _ in range(ROUNDS)
                ]
                ours, bare = (max(column) for column in zip(*rounds, strict=True))
                for name, row, share in (("engine", ours, f"{ours[0] / bare[0]:.0%}"), ("skeleton", bare, "")):
                    print(f"{title:22}{lanes:10}  {name:10}{row[0]:9,.0f}{row[1]:9.2f}{row[2]:9.2f}{share:>13}")
    with standalone(aof=True) as server:
        print(f"memory of a finished saga of three steps: {trio.run(bytes_per_saga, server.url):,.0f} bytes")


if __name__ == "__main__":
    main()
