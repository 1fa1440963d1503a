"""What a step costs as things grow: processes, stored sagas, tenants, steps of a saga, payloads; and what memory costs.

``python benchmarks/scale.py [million]``. The cost of a step is processor time, of all workers and of the server: on a
shared machine it drifts less than the clock, and it must stay flat, whatever grows. What is compared runs in turn, in
several rounds, and the cheapest round of each counts. With ``million`` it is measured beside 10⁶ stored sagas too,
which takes a quarter of an hour and some gigabytes of memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the servers of the tests

from benchmarks import limits  # noqa: E402

from support.processes import DIE_WITH_PARENT  # noqa: E402
from support.servers import Server, standalone  # noqa: E402

ROUNDS = 3
COMMIT_ROUNDS = 7
STEPS = 12_000  # of one round, over all sagas
HELD = 2_000
RETENTION = 1.0


@dataclass(frozen=True)
class Load:
    """What is run.

    Attributes:
        processes: Worker processes that share the store.
        in_flight: Sagas at a time, over all processes.
        steps: Of each saga.
        payload: Bytes that each step takes and returns.
        tenants: Whose the sagas are, in turn.
        total: Steps to run, over all sagas and processes.
        stored: Finished sagas that are in the store before.
        hold: Whether sagas are to stay in their first step.
        settings: Of the managers, where they are not the default.
    """

    processes: int = 1
    in_flight: int = 100
    steps: int = 3
    payload: int = 100
    tenants: int = 1
    total: int = STEPS
    stored: int = 0
    hold: bool = False
    settings: dict[str, float] = field(default_factory=dict)

    @property
    def sagas(self) -> int:
        """How many sagas each process runs."""
        return self.total // self.steps // self.processes

    def of_one(self) -> str:
        """What one process is told."""
        each = asdict(self) | {"sagas": self.sagas, "in_flight": max(self.in_flight // self.processes, 1)}
        return json.dumps(each)


@dataclass(frozen=True)
class Cost:
    """What a step took: microseconds of processor time, of the workers and of the server; and steps per second."""

    what: str
    value: str
    steps_per_second: float
    worker_us: float
    server_us: float

    @property
    def step_us(self) -> float:
        """All processor time of a step."""
        return self.worker_us + self.server_us


class Workers:
    """Processes that run the load together, as often as they are told."""

    def __init__(self, url: str, load: Load) -> None:
        command = [sys.executable, "-I", "-S", DIE_WITH_PARENT, str(os.getpid()), sys.executable, "-W", "ignore"]
        command += ["-m", "benchmarks.scale_worker", url, load.of_one()]
        self._processes = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # they tell of those that were killed before them
                text=True,
                cwd=ROOT,
            )
            for _ in range(load.processes)
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "a worker did not start"

    def run(self) -> list[dict[str, float]]:
        """Once; the row of each."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("run\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self._processes if process.stdout is not None]

    def end(self) -> None:
        """Kill them: there is nothing left that they should finish."""
        for process in self._processes:
            process.kill()
            process.communicate()


@contextmanager
def workers(url: str, load: Load) -> Iterator[Workers]:
    """Processes that are ready."""
    made = Workers(url, load)
    try:
        yield made
    finally:
        made.end()


def information(server: Server, section: str) -> dict[str, Any]:
    """What the server says of itself."""
    lines = str(server.cli("INFO", section)).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def processor(server: Server) -> float:
    """Seconds of processor time that the server has used."""
    used = information(server, "cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def used_memory(server: Server) -> int:
    """Bytes of data that the server holds."""
    return int(information(server, "memory")["used_memory"])


class Measured:
    """A load with a server and workers of its own."""

    def __init__(self, what: str, value: str, load: Load, stack: ExitStack) -> None:
        self._what, self._value, self._load = what, value, load
        self._server = stack.enter_context(standalone("appendfsync everysec", aof=True))
        if load.stored:
            with workers(self._server.url, Load(processes=2, steps=1, total=load.stored)) as crew:
                crew.run()
        self._crew = stack.enter_context(workers(self._server.url, load))

    def once(self) -> Cost:
        """Run the load, once."""
        before = processor(self._server)
        rows = self._crew.run()
        steps = self._load.sagas * self._load.steps * self._load.processes
        return Cost(
            self._what,
            self._value,
            steps / max(row["seconds"] for row in rows),
            1e6 * sum(row["processor"] for row in rows) / steps,
            1e6 * (processor(self._server) - before) / steps,
        )


def loads(*, million: bool) -> Iterator[tuple[str, dict[str, Load]]]:
    """What grows, and the loads that are to be compared."""
    yield "worker processes", {str(count): Load(processes=count) for count in (1, 2, 4)}
    yield "tenants", {f"{count:,}": Load(tenants=count) for count in (1, 1_000)}
    yield "steps of a saga", {str(count): Load(steps=count) for count in (3, 30, 300)}
    yield "KB that a step takes and returns", {f"{size / 1000:g}": Load(payload=size) for size in (100, 1_000, 10_000)}
    counts = (100, 10_000, 1_000_000) if million else (100, 10_000)
    yield "finished sagas in the store", {f"{count:,}": Load(stored=count) for count in counts}


def costs(*, million: bool = False, rounds: int = ROUNDS) -> Iterator[Cost]:
    """What a step costs, whatever grows."""
    for what, compared in loads(million=million):
        with ExitStack() as stack:
            all_of_them = [Measured(what, value, load, stack) for value, load in compared.items()]
            rows = [[each.once() for each in all_of_them] for _ in range(rounds)]
        for of_one in zip(*rows, strict=True):
            yield min(of_one, key=lambda each: each.step_us)


@dataclass(frozen=True)
class Commits:
    """Milliseconds of the commit of a step, and of a round trip of the skeleton's script to the same server.

    Each is the median of several rounds, in which both are measured in turn.
    """

    p50: float
    p99: float
    trip_p50: float
    trip_p99: float


def commit_times(rounds: int = COMMIT_ROUNDS) -> Commits:
    """The commit of a step, one saga at a time and on disk at once."""
    setting = "appendfsync always"
    taken = list[tuple[float, float, float, float]]()
    with standalone(setting, aof=True) as server, workers(server.url, Load(in_flight=1, total=1_500)) as crew:
        for _ in range(rounds):
            row, trip = crew.run()[0], limits.round_trips(server, setting)
            assert trip.p50_ms is not None
            assert trip.p99_ms is not None
            taken.append((row["commit_p50_ms"], row["commit_p99_ms"], trip.p50_ms, trip.p99_ms))
    return Commits(*(statistics.median(column) for column in zip(*taken, strict=True)))


def memory() -> Iterator[tuple[str, float]]:
    """Bytes per saga: in the process and in the server while it runs, and in the server when its retention is over."""
    load = Load(total=3 * HELD, hold=True)
    with standalone(aof=True) as server, workers(server.url, load) as crew:
        before = used_memory(server)
        grown = crew.run()[0]["bytes"]
        yield "a saga in flight, in its worker", grown / load.sagas
        yield "a saga in flight, in the server", (used_memory(server) - before) / load.sagas
    load = Load(total=3 * HELD, settings={"saga_retention": RETENTION, "cleanup_interval": RETENTION})
    with standalone(aof=True) as server, workers(server.url, load) as crew:
        sizes = []
        for _ in range(2):  # the first time, the server also grows by its buffers and scripts
            crew.run()
            time.sleep(4 * RETENTION)  # until it is over, and the janitor has come round
            sizes.append(used_memory(server))
        yield "a saga whose retention is over, in the server", (sizes[1] - sizes[0]) / load.sagas


def main(*, million: bool) -> None:
    print("A step, where a saga has 3 of 0.1 KB, 100 are in flight, and nothing else is said")
    print(f"{'':43}{'steps/s':>10}{'worker µs':>11}{'server µs':>11}{'together':>10}")
    for each in costs(million=million):
        figures = f"{each.steps_per_second:10,.0f}{each.worker_us:11,.0f}{each.server_us:11,.0f}{each.step_us:10,.0f}"
        print(f"{each.what:33}{each.value:>10}{figures}", flush=True)
    commits = commit_times()
    print(f"commit of a step, appendfsync always: p50 {commits.p50:.2f} ms, p99 {commits.p99:.2f} ms")
    print(f"round trip beside it:                 p50 {commits.trip_p50:.2f} ms, p99 {commits.trip_p99:.2f} ms")
    for title, size in memory():
        print(f"{title:70}{size:10,.0f} bytes")


if __name__ == "__main__":
    main(million="million" in sys.argv[1:])
