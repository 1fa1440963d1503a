"""What every peer's process does: drive workflows and say what that took, or stand by as a worker.

Runs in the environments of the peers, so it needs nothing but the standard library. The process is started as
``python -m benchmarks.peers.NAME_worker measure ADDRESS SECONDS PAYLOAD`` and prints ``begin`` and a JSON row for each
number in flight, or with ``serve ADDRESS WORKER``, and then starts one workflow when a line comes on its standard
input. Its steps last a second each and print ``step NUMBER NANOSECONDS``, by the monotonic clock that all share.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

STEPS = 5
IN_FLIGHT = (1, 100)
STEP_SECONDS = 1.0  # while it is measured how soon a standby goes on
WARM_UP = 10

One = Callable[[], Awaitable[object]]


class Meter:
    """Lanes that run one workflow after the other until the time is over, and what they measured.

    Args:
        one: Runs a workflow to its end.
        in_flight: How many lanes there will be.
        seconds: How long lanes begin new workflows.
    """

    def __init__(self, one: One, in_flight: int, seconds: float) -> None:
        self._one, self._in_flight = one, in_flight
        self._took = list[float]()
        print("begin", flush=True)  # whoever measures looks at the processor time now, and again at the row
        self._began = time.perf_counter()
        self._ends = self._began + seconds

    async def lane(self) -> None:
        """One workflow after the other."""
        while (begin := time.perf_counter()) < self._ends:
            await self._one()
            self._took.append(time.perf_counter() - begin)

    def say(self) -> None:
        """Print the row, once all lanes have ended."""
        lasted = time.perf_counter() - self._began
        cuts = statistics.quantiles(self._took, n=100)
        row = {
            "in_flight": self._in_flight,
            "workflows": len(self._took),
            "per_second": len(self._took) / lasted,
            "p50_ms": 1000 * cuts[49],
            "p99_ms": 1000 * cuts[98],
        }
        print(json.dumps(row), flush=True)


async def measure(one: One, seconds: float) -> None:
    """Measure workflows alone and many at once, under asyncio."""
    for _ in range(WARM_UP):
        await one()
    for in_flight in IN_FLIGHT:
        meter = Meter(one, in_flight, seconds)
        await asyncio.gather(*(meter.lane() for _ in range(in_flight)))
        meter.say()


async def stand_by(start: One) -> None:
    """Start a workflow for each line of standard input, under asyncio; until the process is killed."""
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        await start()
    await asyncio.Event().wait()


async def slow_step(number: int) -> None:
    """Say that a step begins, and take its time."""
    say_step(number)
    await asyncio.sleep(STEP_SECONDS)


def say_step(number: int) -> None:
    """Say that a step begins."""
    print("step", number, time.monotonic_ns(), flush=True)


def main(
    measured: Callable[[str, float, str], Coroutine[Any, Any, None]],
    served: Callable[[str, str], Coroutine[Any, Any, None]],
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
) -> None:
    """Do what the command line says: `measured` takes address, seconds and payload, `served` address and name."""
    what, address, *rest = sys.argv[1:]
    if what == "measure":
        seconds, size = rest
        run(measured(address, float(seconds), "x" * int(size)))
    else:
        run(served(address, rest[0]))
