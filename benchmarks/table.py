"""One table of what the package costs, from all benchmarks that need nothing but this machine: `make bench`.

`make bench-quick` (`table.py quick`) takes a minute or two, compares ratios only, and fails where one has become much
worse. No absolute figure can be checked on a machine that is shared; a ratio of two things measured in turn can.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from benchmarks import recovery, saga_memory, saga_redis  # noqa: E402

from support.servers import standalone  # noqa: E402

# Some two thirds of what was measured: what is below is no noise. The share of the skeleton, by sagas in flight.
FLOORS = {1: 0.6, 100: 0.25}
MEMORY_FLOOR = 0.4
KILLS = 3
LATEST = 0.5  # of the lease: a takeover that takes as long did not come from knowing that the process is dead


def rows() -> Iterator[tuple[str, str]]:
    """What was measured, and its figure."""
    for lanes, rate, _, points in saga_memory.results():
        yield f"memory, {lanes} in flight", f"{rate:,.0f} sagas/s, p99 {points[98]:.1f} ms"
    yield f"memory, {saga_memory.HELD:,} in flight", f"{trio.run(saga_memory.held):,.0f} bytes each"
    for result in saga_redis.results():
        figure = f"{result.engine[0]:,.0f} sagas/s, p99 {result.engine[2]:.1f} ms"
        yield f"{result.title}, {result.lanes} in flight", f"{figure}, {result.share:.0%} of the skeleton"
    yield "a finished saga in the server", f"{saga_redis.memory():,.0f} bytes"
    yield from recovery.results()


def checks() -> Iterator[tuple[str, float, float]]:
    """Name, ratio, and the least that it may be."""
    with standalone("appendfsync everysec", aof=True) as server:
        compared = {lanes: saga_redis.compared(server, "everysec", "server", lanes) for lanes in FLOORS}
    for lanes, floor in FLOORS.items():
        yield f"engine by skeleton, {lanes} in flight", compared[lanes].share, floor
    memory = max(trio.run(saga_memory.throughput, 100)[0] for _ in range(saga_memory.ROUNDS))
    yield "memory by skeleton, 100 in flight", memory / compared[100].skeleton, MEMORY_FLOOR
    with standalone("appendfsync everysec", aof=True) as server:
        slowest = max(recovery.takeover(server.url, KILLS))
    yield "lease by takeover", recovery.LEASE / slowest, 1 / LATEST


def main(*, quick: bool) -> int:
    version = platform.python_version()
    print(f"Python {version}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, sagas of three steps")
    failed = 0
    if quick:
        for name, ratio, floor in checks():
            failed += ratio < floor
            print(f"{name:40} {ratio:8.2f}   at least {floor:.2f}{'' if ratio >= floor else '   TOO LITTLE'}")
        return failed
    for title, figure in rows():
        print(f"{title:70} {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main(quick="quick" in sys.argv[1:]))
