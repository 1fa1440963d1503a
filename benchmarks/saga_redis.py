"""What a saga costs on a real server: three steps each, journaled before each effect, beside two limits.

Prints, for each durability, sagas per second with 1 and with 100 in flight, how long one saga takes (p50, p99), and
what part that is of the *skeleton* (`skeleton.py`: the commits of a saga and nothing else, on redis-py's connection).
Beside them the *gateway*: the same commits over the package's own connection, so what can be had of it at most. All
run in turn, several rounds; the best round of each counts, since what disturbs one only makes it slower. At the end,
the memory that a finished saga takes in the server.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.storage.redis import RedisStorage
from dotmac.tasks.storage.redis.gateway import RedisClient, open_client
from dotmac.tasks.storage.redis.options import RedisOptions
from dotmac.tasks.storage.redis.script import Script

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the skeleton next to this, and the servers of the tests

from benchmarks.skeleton import sagas_per_second  # noqa: E402

from support.servers import Server, standalone  # noqa: E402

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


async def measured(lanes: int, one: Callable[[], Awaitable[None]], count: int) -> Row:
    """Sagas per second, and milliseconds of one saga at p50 and p99."""
    took = list[float]()

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


async def engine(url: str, durability: str, lanes: int, count: int = 0) -> Row:
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
        return await measured(lanes, one, count or SAGAS[lanes])


async def gateway(url: str, lanes: int) -> Row:
    async with open_client(RedisOptions.from_url(url, socket_timeout=30.0)) as client:
        return await measured(lanes, lambda: commits(client), SAGAS[lanes])


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
        await engine(url, "server", 100, count)
        return (await used() - before) / count


@dataclass(frozen=True)
class Result:
    """One setting, measured: rows of the engine and of the gateway, and sagas per second of the skeleton."""

    title: str
    lanes: int
    engine: Row
    gateway: Row
    skeleton: float

    @property
    def share(self) -> float:
        """What part of the skeleton's rate the engine reaches."""
        return self.engine[0] / self.skeleton


def compared(server: Server, title: str, durability: str, lanes: int, rounds: int = ROUNDS) -> Result:
    """Run all three in turn, and give the best of each."""
    rows = [
        (
            trio.run(engine, server.url, durability, lanes),
            trio.run(gateway, server.url, lanes),
            trio.run(sagas_per_second, server.url, lanes, SAGAS[lanes]),
        )
        for _ in range(rounds)
    ]
    engines, gateways, skeletons = zip(*rows, strict=True)
    return Result(title, lanes, max(engines), max(gateways), max(skeletons))


def results() -> Iterator[Result]:
    """Every durability, alone and many at a time."""
    for title, line, durability in SETTINGS:
        with standalone(line, aof=True) as server:
            for lanes in SAGAS:
                yield compared(server, title, durability, lanes)


def memory() -> float:
    """Bytes in the server that a finished saga takes."""
    with standalone(aof=True) as server:
        return trio.run(bytes_per_saga, server.url)


def main() -> None:
    print(f"{'durability':22}{'in flight':>10}{'':12}{'sagas/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'of skeleton':>13}")
    for result in results():
        for name, (rate, p50, p99) in (("engine", result.engine), ("gateway", result.gateway)):
            share = f"{rate / result.skeleton:.0%}"
            print(f"{result.title:22}{result.lanes:10}  {name:10}{rate:9,.0f}{p50:9.2f}{p99:9.2f}{share:>13}")
        print(f"{result.title:22}{result.lanes:10}  {'skeleton':10}{result.skeleton:9,.0f}")
    print(f"memory of a finished saga of three steps: {memory():,.0f} bytes")


if __name__ == "__main__":
    main()
