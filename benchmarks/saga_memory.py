"""What a saga costs on memory storage: three steps each, journaled, with every promise kept.

Prints sagas per second with 1 and with 100 in flight, how long one saga takes (p50, p99), what that is of a skeleton
measured in turn (a task and a journal in a list for each saga, and none of the promises), and the bytes that a saga in
flight holds. The best of several rounds is printed: what disturbs a round only ever makes it slower. Where the
machine is shared, sagas per second of processor time tell more than those per second of the clock; both are given.
"""

from __future__ import annotations

import json
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import trio

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage

ROUNDS = 5
SAGAS = 3_000
IN_FLIGHT = (1, 100)
HELD = 10_000
STEPS = [{"name": name, "operation": "work", "parameters": {"amount": 1}} for name in ("reserve", "charge", "ship")]


async def work(_parameters: dict[str, Any]) -> dict[str, bool]:
    return {"done": True}


async def one_saga(manager: BackgroundOperationsManager) -> None:
    handle = await manager.start_saga(tenant_id="bench", workflow_type="order", steps=STEPS)
    assert (await handle.result()).completed


async def throughput(lanes: int) -> tuple[float, float, list[float]]:
    """Sagas per second of the clock and of the processor, and how long each saga took."""
    manager = BackgroundOperationsManager(storage=MemoryStorage())
    manager.register_operation_handler("work", work)
    took: list[float] = []

    async def lane() -> None:
        for _ in range(SAGAS // lanes):
            begin = time.perf_counter()
            await one_saga(manager)
            took.append(time.perf_counter() - begin)

    async with manager:
        clock, processor = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(lanes):
                nursery.start_soon(lane)
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return len(took) / clock, len(took) / processor, took


async def skeleton(lanes: int) -> float:
    """Sagas per second of what does nothing but run the handlers in a task and append an event for each step."""
    journals: dict[str, list[str]] = {}

    async def saga(name: str, ended: trio.Event) -> None:
        journal = journals[name] = [json.dumps({"kind": "created", "at": time.time(), "steps": STEPS})]
        for step in STEPS:
            with trio.move_on_after(30):
                result = await work({"amount": 1})
            await trio.lowlevel.checkpoint()
            journal.append(json.dumps({"kind": "completed", "at": time.time(), "step": step["name"], "result": result}))
        ended.set()

    async def lane() -> None:
        for _ in range(SAGAS // lanes):
            ended = trio.Event()
            sagas.start_soon(saga, uuid4().hex, ended)
            await ended.wait()

    clock = time.perf_counter()
    async with trio.open_nursery() as sagas, trio.open_nursery() as nursery:
        for _ in range(lanes):
            nursery.start_soon(lane)
    return SAGAS // lanes * lanes / (time.perf_counter() - clock)


async def held() -> float:
    """Bytes of a saga whose first step is running: its actor, its journal in the storage, its handle."""
    manager = BackgroundOperationsManager(storage=MemoryStorage())
    entered, leave = 0, trio.Event()

    async def park(_parameters: dict[str, Any]) -> None:
        nonlocal entered
        entered += 1
        await leave.wait()

    manager.register_operation_handler("work", park)
    async with manager:
        tracemalloc.start()
        handles = [await manager.start_saga(tenant_id="bench", workflow_type="order", steps=STEPS) for _ in range(HELD)]
        while entered < HELD:
            await trio.lowlevel.checkpoint()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        leave.set()
        for handle in handles:
            await handle.result()
    return size / HELD


def results() -> Iterator[tuple[int, float, float, list[float], float]]:
    """How many in flight, and the best of several rounds: sagas per second, per CPU second, times in ms, skeleton's."""
    for lanes in IN_FLIGHT:
        rounds, limits = list[tuple[float, float, list[float]]](), list[float]()
        for _ in range(ROUNDS):
            rounds.append(trio.run(throughput, lanes))
            limits.append(trio.run(skeleton, lanes))
        points = [1000 * point for point in statistics.quantiles(max(rounds)[2], n=100)]
        yield lanes, max(r[0] for r in rounds), max(r[1] for r in rounds), points, max(limits)


def main() -> None:
    print(
        f"{'in flight':>10}{'sagas/s':>12}{'per CPU s':>12}{'p50 ms':>10}{'p99 ms':>10}{'skeleton/s':>12}{'of it':>8}"
    )
    for lanes, rate, processor, points, limit in results():
        times = f"{points[49]:10.2f}{points[98]:10.2f}"
        print(f"{lanes:10}{rate:12,.0f}{processor:12,.0f}{times}{limit:12,.0f}{rate / limit:8.0%}")
    print(f"{HELD:,} in flight: {trio.run(held):,.0f} bytes each")


if __name__ == "__main__":
    main()
