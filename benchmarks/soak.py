"""Whether a service stays as it is for hours: sagas at half of the highest rate, and its memory watched.

    python benchmarks/soak.py [MINUTES] [--trace]

One process as `dotmac-tasks serve` is one: runtime, metrics, live events, API and dashboard, which are looked at every
now and then. It begins with measuring its highest rate on this machine. The sagas: some turn back, some retry, some are
started under an idempotency key, some take a lock. What has ended is removed after seconds, so that the storage has as
much to remove as to take in. Printed every 30 seconds: resident memory and open files of this process, memory of the
server, sagas under way, their rate, and how long they took from the moment at which they were due (p99).

The last line is the verdict: how much the memory grew once the five minutes were full that the dashboard remembers (or
after half of the time, if that is sooner). Exit code 1 if it grew by more than a twentieth. Where a busy machine made
sagas pile up, it stays as large as the pile was. With --trace, at an eighth of the rate because tracing is slow, what
grew meanwhile is named.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import trio

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the servers of the tests

from dotmac.tasks import BackgroundOperationsManager, NonRetryableError  # noqa: E402
from dotmac.tasks.service.access import Access  # noqa: E402
from dotmac.tasks.service.console import create_console  # noqa: E402
from dotmac.tasks.storage.redis import RedisStorage  # noqa: E402
from support.servers import Server, standalone  # noqa: E402

REPORT_EVERY = 30.0
LOOK_EVERY = 10.0
WARM_UP, MEASURED = 2.0, 8.0
LANES = 100
MOST_UNDER_WAY = 2_000
SHARE, SHARE_TRACED = 2, 8  # what part of the highest rate
FRAMES = 4
RETENTION = 20.0
SETTLED = 330.0
TOO_MUCH = 0.05
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
STEPS: list[dict[str, Any]] = [
    {"name": name, "operation": "work", "parameters": {"amount": 1}, "compensation_operation": "undo"}
    for name in ("reserve", "charge", "ship")
]
PAGES = ("/", "/sagas", "/locks", "/workers", "/metrics", "/v1/sagas?limit=20", "/health/ready")


@dataclass
class Load:
    """What is sent, and what came of it since the last report."""

    manager: BackgroundOperationsManager
    number: int = 0
    under_way: int = 0
    took: list[float] = field(default_factory=list)

    async def saga(self, due_at: float | None = None) -> None:
        """One saga from its start to its end."""
        self.number += 1
        number = self.number
        steps = [dict(step) for step in STEPS]
        if number % 20 == 0:
            steps[2]["parameters"] = {"refuse": True}
        elif number % 20 == 1:
            steps[1] |= {"parameters": {"fail_first": True}, "retry": {"max_retries": 2, "initial_delay": 0.01}}
        elif number % 20 == 2:
            steps[1]["lock"] = f"account:{number % 7}"
        key = f"order-{number}" if number % 4 == 0 else None
        begin = trio.current_time() if due_at is None else due_at
        self.under_way += 1
        try:
            tenant = f"tenant-{number % 5}"
            handle = await self.manager.start_saga(
                tenant_id=tenant, workflow_type="order", steps=steps, idempotency_key=key
            )
            await handle.result()
        finally:
            self.under_way -= 1
        self.took.append(trio.current_time() - begin)

    async def at_full_speed(self) -> float:
        """Sagas per second with as many under way as there are lanes."""

        async def lane() -> None:
            while True:
                await self.saga()

        with trio.move_on_after(WARM_UP + MEASURED):
            async with trio.open_nursery() as nursery:
                for _ in range(LANES):
                    nursery.start_soon(lane)
                await trio.sleep(WARM_UP)
                self.took.clear()
                await trio.sleep_forever()
        rate = len(self.took) / MEASURED
        self.took.clear()
        return rate

    async def steadily(self, rate: float, seconds: float) -> None:
        """So many sagas per second, whether the ones before have ended or not."""
        places = trio.Semaphore(MOST_UNDER_WAY)  # a machine that does not keep up shows in the latency

        async def one(due_at: float) -> None:
            try:
                await self.saga(due_at)
            finally:
                places.release()

        async with trio.open_nursery() as nursery:
            begin = trio.current_time()
            for number in range(int(rate * seconds)):
                due_at = begin + number / rate
                # Without a checkpoint between two that are due: each would be a whole round of everything that runs.
                if trio.current_time() < due_at:
                    await trio.sleep_until(due_at)
                if places.value:
                    places.acquire_nowait()
                else:
                    await places.acquire()
                nursery.start_soon(one, due_at)


@dataclass(frozen=True)
class Sample:
    """How things stood at one report: seconds since the begin, and bytes."""

    at: float
    resident: int


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def open_files() -> int:
    """File descriptors of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def server_bytes(server: Server) -> int:
    """Memory that the server uses."""
    info: str = server.cli("INFO", "memory")
    return int(info.partition("used_memory:")[2].split()[0])


@asynccontextmanager
async def service(url: str) -> AsyncIterator[tuple[Load, httpx.AsyncClient]]:
    """A service, and somebody who looks at it."""
    manager = BackgroundOperationsManager(
        RedisStorage(url, prefix="soak", socket_timeout=30.0),
        saga_retention=RETENTION,
        default_ttl=RETENTION,
        cleanup_interval=RETENTION / 4,
    )

    async def work(parameters: dict[str, Any], context: Any) -> dict[str, bool]:
        if parameters.get("refuse"):
            raise NonRetryableError("not possible")
        if parameters.get("fail_first") and context.attempt == 1:
            raise ValueError("busy")
        return {"done": True}

    async def undo(_parameters: dict[str, Any]) -> None:
        """Nothing was done."""

    manager.register_operation_handler("work", work)
    manager.register_compensation_handler("undo", undo)
    app = create_console(manager, Access())
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8080") as client,
    ):
        yield Load(manager), client


async def look(client: httpx.AsyncClient) -> None:
    """Open every page from time to time."""
    while True:
        await trio.sleep(LOOK_EVERY)
        for page in PAGES:
            answer = await client.get(page)
            if answer.is_error:  # a machine that is too busy for a probe is worth a line, not the end
                print(f"        {page}: {answer.status_code} {answer.reason_phrase}", flush=True)


async def report(load: Load, server: Server, samples: list[Sample]) -> None:
    """Print a line every now and then."""
    begin = last = trio.current_time()
    while True:
        await trio.sleep_until(last + REPORT_EVERY)
        now = trio.current_time()
        took, load.took = load.took, []
        p99 = 1000 * statistics.quantiles(took, n=100)[98] if len(took) > 1 else 0.0
        samples.append(Sample(now - begin, resident_bytes()))
        used = await trio.to_thread.run_sync(server_bytes, server)
        print(
            f"{now - begin:7.0f}{samples[-1].resident / 2**20:10.1f}{open_files():7}"
            f"{used / 2**20:12.1f}{load.under_way:10}{len(took) / (now - last):10,.0f}{p99:10.1f}",
            flush=True,
        )
        last = now


async def soak(server: Server, seconds: float, *, trace: bool) -> bool:
    """Run it; whether the memory stayed as it was."""
    samples: list[Sample] = []
    settled = min(SETTLED, seconds / 2)
    async with service(server.url) as (load, client):
        top = await load.at_full_speed()
        rate = top / (SHARE_TRACED if trace else SHARE)
        print(f"highest rate: {top:,.0f} sagas/s; {seconds / 60:g} minutes at {rate:,.0f}\n")
        print(
            f"{'s':>7}{'RSS MiB':>10}{'files':>7}{'server MiB':>12}{'under way':>10}{'sagas/s':>10}{'p99 ms':>10}",
            flush=True,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report, load, server, samples)
            nursery.start_soon(look, client)
            if trace:
                nursery.start_soon(traced, settled)
            await load.steadily(rate, seconds)
            nursery.cancel_scope.cancel()
        samples.append(Sample(seconds, resident_bytes()))
        if trace:
            print_growth()
    first = next(sample for sample in samples if sample.at >= settled)
    growth = samples[-1].resident / first.resident - 1
    print(f"\nRSS from minute {first.at / 60:.1f} to the end: {growth:+.1%}{'' if growth <= TOO_MUCH else '   GROWS'}")
    return growth <= TOO_MUCH


_snapshots: list[tracemalloc.Snapshot] = []


async def traced(settled: float) -> None:
    """Remember what is allocated once things have settled."""
    await trio.sleep(settled)
    tracemalloc.start(FRAMES)
    await trio.sleep(1.0)
    gc.collect()
    _snapshots.append(tracemalloc.take_snapshot())


def print_growth() -> None:
    """What is allocated now and was not then."""
    gc.collect()
    now = tracemalloc.take_snapshot()
    for difference in now.compare_to(_snapshots[0], "traceback")[:8]:
        print(f"\n{difference.size_diff:+,} bytes, {difference.count_diff:+,} blocks")
        print("\n".join(difference.traceback.format()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a service for a while and watch its memory.")
    parser.add_argument("minutes", nargs="?", type=float, default=15.0)
    parser.add_argument("--trace", action="store_true", help="name what grew (slower)")
    options = parser.parse_args()
    with standalone("appendfsync everysec", aof=True) as server:
        return 0 if trio.run(lambda: soak(server, options.minutes * 60, trace=options.trace)) else 1


if __name__ == "__main__":
    started = time.perf_counter()
    code = main()
    print(f"took {time.perf_counter() - started:.0f} s")
    sys.exit(code)
