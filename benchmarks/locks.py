"""Locks beside redis-py's `Lock` (in threads and under asyncio), python-redis-lock and pottery's Redlock, in one run.

`python benchmarks/locks.py [seconds]`. The other two live in environments of their own, which the script makes.
Measured are:

- alone: acquire and release of a free lock, one caller after the other, and 100 callers with a lock each;
- contended: four processes with 25 callers each who all want one lock; hand-offs per second (all of them, over all
  processes), the 99th percentile of the time between a release and the next grant, and commands per hand-off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.storage.redis import RedisStorage

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the servers of the tests, and the script next to this one

from benchmarks.lock_callers import ALONE, CONTENDED, PLAIN  # noqa: E402
from benchmarks.peers.environments import NotInstalled, python_with  # noqa: E402

from support.servers import Server, standalone  # noqa: E402

PROCESSES, WAITERS = 4, 100
HERE = ROOT / "benchmarks"
OTHERS = {"python-redis-lock": "python-redis-lock==4.0.1", "pottery": "pottery==3.0.1"}


async def alone(url: str, seconds: float, callers: int) -> float:
    """Acquire-and-release pairs per second, each caller on a lock of its own."""
    count, ends = 0, 0.0

    async def caller(number: int) -> None:
        nonlocal count
        while time.perf_counter() < ends:
            async with manager.lock(f"alone-{number}"):
                count += 1

    async with BackgroundOperationsManager(storage=RedisStorage(url)) as manager:
        began = time.perf_counter()
        ends = began + seconds
        async with trio.open_nursery() as nursery:
            for number in range(callers):
                nursery.start_soon(caller, number)
        return count / (time.perf_counter() - began)


async def contended(url: str, seconds: float, waiters: int) -> list[tuple[int, int]]:
    """Moments of grant and release, in nanoseconds of the clock that all processes share."""
    moments: list[tuple[int, int]] = []
    ends = 0.0

    async def caller() -> None:
        while time.monotonic() < ends:
            async with manager.lock("contended"):
                granted = time.monotonic_ns()
                await trio.lowlevel.checkpoint()
                moments.append((granted, time.monotonic_ns()))

    async with BackgroundOperationsManager(storage=RedisStorage(url)) as manager:
        async with manager.lock("warm-up"):
            pass
        print("ready", flush=True)
        ends = float(sys.stdin.readline()) + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(waiters):
                nursery.start_soon(caller)
    return moments


def environment() -> dict[str, str | NotInstalled]:
    """Where the others are installed: name to interpreter, or why it cannot be had."""
    found: dict[str, str | NotInstalled] = dict.fromkeys(("this", *PLAIN), sys.executable)
    for name, requirement in OTHERS.items():
        try:
            found[name] = str(python_with(name, [requirement]))
        except NotInstalled as reason:
            found[name] = reason
    return found


def run_alone(python: str, name: str, url: str, seconds: float, callers: int) -> float:
    if name == "this":
        return trio.run(alone, url, seconds, callers)
    script = [python, "-W", "ignore", str(HERE / "lock_callers.py"), ALONE, name, url, str(seconds), str(callers)]
    return float(subprocess.run(script, check=True, capture_output=True, text=True).stdout)


def run_contended(python: str, name: str, server: Server, seconds: float) -> tuple[float, float, float]:
    """Hand-offs per second, 99th percentile of the gap between two holders in ms, commands per hand-off."""
    script = str(Path(__file__)) if name == "this" else str(HERE / "lock_callers.py")
    command = [python, "-W", "ignore", script, CONTENDED, name, server.url, str(seconds), str(WAITERS // PROCESSES)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
        for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    server.cli("CONFIG", "RESETSTAT")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{time.monotonic() + 0.2}\n")
        process.stdin.flush()
    moments = sorted(tuple(moment) for process in processes for moment in json.loads(process.communicate()[0]))
    gaps = sorted(after[0] - before[1] for before, after in pairwise(moments))
    assert gaps[0] >= 0, "two were inside at once"
    lasted = (moments[-1][1] - moments[0][0]) / 1e9
    return len(moments) / lasted, gaps[int(len(gaps) * 0.99)] / 1e6, _commands(server) / len(moments)


def _commands(server: Server) -> int:
    """What the clients sent; what scripts called inside is not counted."""
    stats = [line.partition(":calls=") for line in str(server.cli("INFO", "commandstats")).splitlines()]
    sent = {head.removeprefix("cmdstat_"): int(rest.partition(",")[0]) for head, _, rest in stats if rest}
    scripts = sent.get("evalsha", 0) + sent.get("eval", 0)
    inside = {"hmget", "time", "zrange", "hget", "hset", "hdel", "zrem", "zadd", "zscore", "zrank", "zcard", "hincrby",
              "pexpire", "publish", "pttl"} if scripts else set()  # fmt: skip
    return sum(calls for name, calls in sent.items() if name not in inside | {"config|resetstat", "info", "ping"})


@dataclass(frozen=True)
class Locks:
    """What a library's locks do: pairs of acquire and release per second alone, one and many; hand-offs under wait."""

    name: str
    one: float = 0.0
    many: float = 0.0
    handed: float = 0.0
    p99_ms: float = 0.0
    commands: float = 0.0
    missing: str = ""


def results(seconds: float) -> Iterator[Locks]:
    """Every library, on a server of its own."""
    for name, python in environment().items():
        if isinstance(python, NotInstalled):
            yield Locks(name, missing=f"not installed: {python}")
            continue
        with standalone("appendonly no") as server:
            one = run_alone(python, name, server.url, seconds, 1)
            many = run_alone(python, name, server.url, seconds, WAITERS)
            yield Locks(name, one, many, *run_contended(python, name, server, seconds))


def main(seconds: float) -> None:
    load = os.getloadavg()[0]
    print(f"{seconds:g} s each; load average {load:.1f} on {os.cpu_count()} cores")
    print(f"{'':18} {'alone':>9} {'100 alone':>10} {'hand-offs/s':>12} {'p99 ms':>8} {'commands':>9}")
    for row in results(seconds):
        figures = f"{row.one:>9,.0f} {row.many:>10,.0f} {row.handed:>12,.0f} {row.p99_ms:>8.1f} {row.commands:>9.2f}"
        print(f"{row.name:18} {row.missing or figures}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _, _, _, server_url, duration, callers_each = sys.argv
        result: Any = trio.run(contended, server_url, float(duration), int(callers_each))
        print(json.dumps(result))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
