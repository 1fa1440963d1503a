"""What it costs to call the manager from outside its trio run: calls per second, with 1 and with 100 in flight.

The call is ``check_idempotency`` of an unknown key on memory storage, which does next to nothing, so that what is
measured is the way there and back. Beside it, in the same run: the same call under trio, the same call through anyio's
blocking portal, and a thread of ``asyncio.to_thread`` that does nothing at all.

`python benchmarks/bridge.py [SECONDS]`
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.from_thread
import trio
import uvloop

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage

IN_FLIGHT = (1, 100)

Call = Callable[[], Awaitable[object]]


def a_manager() -> BackgroundOperationsManager:
    return BackgroundOperationsManager(MemoryStorage())


async def rate(call: Call, callers: int, seconds: float) -> float:
    """Calls per second of so many tasks that call one after the other."""
    counts = [0] * callers
    began = time.perf_counter()

    async def caller(number: int) -> None:
        while time.perf_counter() < began + seconds:
            await call()
            counts[number] += 1

    async with anyio.create_task_group() as group:
        for number in range(callers):
            group.start_soon(caller, number)
    return sum(counts) / (time.perf_counter() - began)


async def rates(call: Call, seconds: float) -> list[float]:
    await rate(call, 10, seconds / 5)  # warm up
    return [await rate(call, callers, seconds) for callers in IN_FLIGHT]


def under_trio(seconds: float) -> list[float]:
    async def main() -> list[float]:
        async with a_manager() as manager:
            return await rates(lambda: manager.check_idempotency("nothing"), seconds)

    return trio.run(main)


def from_loop(run: Callable[[Any], Any], seconds: float) -> list[float]:
    async def main() -> list[float]:
        async with a_manager() as manager:
            return await rates(lambda: manager.check_idempotency("nothing"), seconds)

    measured: list[float] = run(main())
    return measured


def from_threads(seconds: float) -> list[float]:
    manager = a_manager()

    def caller(ends: float) -> int:
        count = 0
        while time.perf_counter() < ends:
            manager.sync.check_idempotency("nothing")
            count += 1
        return count

    found = []
    with manager.sync:
        for callers in IN_FLIGHT:
            with ThreadPoolExecutor(callers) as pool:
                began = time.perf_counter()
                counts = list(pool.map(caller, [began + seconds] * callers))
                found.append(sum(counts) / (time.perf_counter() - began))
    return found


def blocking_portal(seconds: float) -> list[float]:
    async def main() -> list[float]:
        with anyio.from_thread.start_blocking_portal("trio") as portal:
            manager = a_manager()
            portal.call(manager.start)
            try:
                return await rates(
                    lambda: asyncio.wrap_future(portal.start_task_soon(manager.check_idempotency, "nothing")), seconds
                )
            finally:
                portal.call(manager.stop)

    return asyncio.run(main())


def to_thread(seconds: float) -> list[float]:
    return asyncio.run(rates(lambda: asyncio.to_thread(lambda: None), seconds))


def main(seconds: float) -> None:
    rows: list[tuple[str, Callable[[float], list[float]]]] = [
        ("trio, the manager's own run", under_trio),
        ("asyncio, through the bridge", lambda seconds: from_loop(asyncio.run, seconds)),
        ("uvloop, through the bridge", lambda seconds: from_loop(uvloop.run, seconds)),
        ("threads, manager.sync", from_threads),
        ("asyncio, anyio's blocking portal", blocking_portal),
        ("asyncio.to_thread of nothing", to_thread),
    ]
    heads = "".join(f"{callers:>14} in flight" for callers in IN_FLIGHT)
    print(f"{'calls per second':34}{heads}")
    for name, measure in rows:
        print(f"{name:34}" + "".join(f"{found:>24,.0f}" for found in measure(seconds)), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
