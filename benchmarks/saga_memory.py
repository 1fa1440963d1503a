"""What a saga costs on memory storage: three steps each, journaled, with every promise kept.

Prints sagas per second with 1 and with 100 in flight, how long one saga takes (p50, p99), and the bytes that a saga
in flight holds. The best of several rounds is printed: what disturbs a round only ever makes it slower. Where the
machine is shared, sagas per second of processor time tell more than those per second of the clock; both are given.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

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


def results() -> Iterator[tuple[int, float, float, list[float]]]:
    """How many in flight, and the best of several rounds: sagas per second, the same per CPU second, milliseconds."""
    for lanes in IN_FLIGHT:
        rounds = [trio.run(throughput, lanes) for _ in range(ROUNDS)]
        _, _, took = max(rounds)
        points = [1000 * point for point in statistics.quantiles(took, n=100)]
        yield lanes, max(r[0] for r in rounds), max(r[1] for r in rounds), points


def main() -> None:
    print(f"{'in flight':>10}{'sagas/s':>12}{'per CPU s':>12}{'p50 ms':>10}{'p99 ms':>10}")
    for lanes, rate, processor, points in results():
        print(f"{lanes:10}{rate:12,.0f}{processor:12,.0f}{points[49]:10.2f}{points[98]:10.2f}")
    print(f"{HELD:,} in flight: {trio.run(held):,.0f} bytes each")


if __name__ == "__main__":
    main()
