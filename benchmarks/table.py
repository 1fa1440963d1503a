"""One table of what the package costs, beside its limits and its peers: `make bench`, some twenty minutes.

`table.py SECTION…` prints some of its sections only: those named in `sections.py`. Beside the table, raw rows and
charts are written to a folder that git ignores.

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
from benchmarks.report import Row, machine, save, written  # noqa: E402
from benchmarks.sections import SECTIONS, ratios  # noqa: E402

from support.servers import standalone  # noqa: E402

# Some two thirds of what was measured: what is below is no noise. The share of the skeleton, by sagas in flight.
FLOORS = {1: 0.6, 100: 0.25}
MEMORY_FLOOR = 0.4
KILLS = 3
LATEST = 0.5  # of the lease: a takeover that takes as long did not come from knowing that the process is dead


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


def quick() -> int:
    """Print the ratios, and how many of them are too low."""
    version = platform.python_version()
    print(f"Python {version}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, sagas of three steps")
    failed = 0
    for name, ratio, floor in checks():
        failed += ratio < floor
        print(f"{name:40} {ratio:8.2f}   at least {floor:.2f}{'' if ratio >= floor else '   TOO LITTLE'}")
    return failed


def full(wanted: list[str]) -> None:
    """Print the table, and write it, its raw rows and charts to a folder."""
    facts, rows, lines = machine(), list[Row](), list[str]()

    def measured() -> Iterator[Row]:
        for section in wanted or SECTIONS:
            for row in SECTIONS[section]():
                rows.append(row)
                yield row
        for row in ratios(rows[:]):
            rows.append(row)
            yield row

    for line in written(facts, measured()):
        lines.append(line)
        print(line, flush=True)
    print(f"\nraw rows and charts: {save(facts, rows, lines).relative_to(ROOT)}")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments == ["quick"]:
        sys.exit(quick())
    full(arguments)
