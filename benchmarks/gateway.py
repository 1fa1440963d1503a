"""SET/s through the gateway, beside redis.asyncio and beside the bare skeleton of the same idea, in one run.

Usage: python benchmarks/gateway.py [COMMANDS]. Starts a private server without persistence, so that what is
measured is the client.

The *skeleton* is the practical ceiling for one Python process: a pipelined connection under trio-asyncio, no
deadlines, no cancellation, no errors, no window. What the gateway loses against it is the price of these.
"""

from __future__ import annotations

import asyncio
import sys
import time
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import hiredis
import redis.asyncio
import trio
import trio_asyncio
from redis.asyncio.connection import Connection

from dotmac.tasks.storage.redis.gateway import open_client
from dotmac.tasks.storage.redis.options import RedisOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the servers of the tests
from support.servers import standalone

CALLERS = (1, 10, 100, 1000)
Set = Callable[[], Awaitable[Any]]


async def timed(callers: int, commands: int, call: Set) -> float:
    """Commands per second of so many trio tasks."""

    async def caller() -> None:
        for _ in range(commands // callers):
            await call()

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)
    return commands / (time.perf_counter() - began)


async def gateway(url: str, callers: int, commands: int, host: str) -> float:
    async with open_client(RedisOptions.from_url(url, loop_host=host)) as client:
        await client.execute("PING")
        return await timed(callers, commands, lambda: client.execute("SET", "key", "value"))


class Place:
    """Where one caller waits."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.reply: Any = None


class Skeleton:
    """One connection, one queue of who waits."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.packed: list[bytes] = []
        self.waiting: deque[Place] = deque()
        self.wake = asyncio.Event()

    async def set(self) -> Any:
        """Sends a SET and waits for its reply."""
        place = Place()
        self.packed.append(hiredis.pack_command(("SET", "key", "value")))  # type: ignore[arg-type]  # any length
        self.waiting.append(place)
        self.wake.set()
        await place.answered.wait()
        return place.reply

    async def write(self) -> None:
        """Sends what has gathered."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            batch, self.packed = self.packed, []
            if batch:
                await self.connection.send_packed_command(b"".join(batch), check_health=False)

    async def read(self) -> None:
        """Hands out replies in order."""
        while True:
            reply = await self.connection.read_response(disable_decoding=True)
            place = self.waiting.popleft()
            place.reply = reply
            place.answered.set()


async def skeleton(port: int, callers: int, commands: int) -> float:
    async with trio_asyncio.open_loop():
        connection = Connection(host="127.0.0.1", port=port, socket_timeout=None)
        await trio_asyncio.aio_as_trio(connection.connect)()
        bare = Skeleton(connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio_asyncio.aio_as_trio(bare.write))
            nursery.start_soon(trio_asyncio.aio_as_trio(bare.read))
            rate = await timed(callers, commands, bare.set)
            nursery.cancel_scope.cancel()
        await trio_asyncio.aio_as_trio(connection.disconnect)()
    return rate


async def plain(url: str, callers: int, commands: int) -> float:
    """redis.asyncio under asyncio, as most programs use it."""
    async with redis.asyncio.Redis.from_url(url, max_connections=min(callers, 100) + 1) as client:
        client.connection_pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=min(callers, 100))

        async def caller() -> None:
            for _ in range(commands // callers):
                await client.set("key", "value")

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        rate = commands / (time.perf_counter() - began)
        await client.connection_pool.disconnect()
        return rate


def main(commands: int) -> None:
    with standalone("appendonly no") as server:
        print(f"SET/s, {commands} commands each (fewer at 1 caller and for redis.asyncio)")
        print(
            f"{'callers':>8} {'gateway':>10} {'in thread':>10} {'skeleton':>10} {'redis.asyncio':>14} {'of bare':>12}"
        )
        for callers in CALLERS:
            count = commands // 10 if callers == 1 else commands
            inside = trio.run(gateway, server.url, callers, count, "trio-asyncio")
            thread = trio.run(gateway, server.url, callers, count, "thread")
            bare = trio.run(skeleton, server.port, callers, count)
            usual = asyncio.run(plain(server.url, callers, max(callers, count // 10)))
            print(
                f"{callers:>8} {inside:>10,.0f} {thread:>10,.0f} {bare:>10,.0f} {usual:>14,.0f} {inside / bare:>12.0%}"
            )


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the skeleton leaves redis-py's objects as they are
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
