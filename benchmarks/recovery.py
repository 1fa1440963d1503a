"""How soon the work of a dead process goes on, and what it costs to stand by. Real processes, default settings.

- *takeover*: SIGKILL in the third of five steps while a second worker stands by; seconds until the next step begins
  there. The steps take 0.2 s, so that fifty kills fit into two minutes; the kill comes at a random moment of the step.
- *adoption*: SIGKILL of a worker with 10,000 sagas in flight; seconds until the step of each runs elsewhere.
- *idle*: commands per second of one runtime while 10,000 sagas sleep, those that scripts call inside counted too.

The kernel tells the standby of the death, since both are on one machine. A worker on another one waits for the lease.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the servers of the tests

from dotmac.tasks.settings import Settings  # noqa: E402
from support.servers import Server, standalone  # noqa: E402

SCRIPT = ROOT / "benchmarks" / "recovery_worker.py"
KILLS, STEP_SECONDS = 50, 0.2
MANY = 10_000
IDLE_SECONDS = 20.0
LEASE, POLL = Settings().worker_lease, Settings().poll_interval


class Member:
    """A worker process."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", SCRIPT, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def tell(self, command: str) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def hear(self, *words: str) -> tuple[str, int]:
        """Wait for one of these words; it, and when it was said, in nanoseconds."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, at = line.partition(" ")
            if word in words:
                return word, int(at)
        raise RuntimeError(f"a worker ended before it said {' or '.join(words)}")

    def kill(self) -> int:
        """SIGKILL; when, in nanoseconds."""
        self.process.kill()
        at = time.monotonic_ns()
        self.process.wait()
        return at


@contextmanager
def members(url: str, count: int) -> Iterator[list[Member]]:
    """So many workers that have stood by for a moment."""
    made = [Member(url) for _ in range(count)]
    try:
        for member in made:
            member.hear("ready")
        time.sleep(2 * POLL)
        yield made
    finally:
        for member in made:
            if member.process.poll() is None:
                member.kill()


def takeover(url: str, kills: int) -> list[float]:
    """Seconds from each kill to the next beginning of a step."""
    took = []
    with members(url, 2) as crew:
        for _ in range(kills):
            active, standby = crew
            active.tell(f"start 1 {STEP_SECONDS}")
            active.hear("third-1")
            time.sleep(random.uniform(0, STEP_SECONDS * 0.9))
            killed = active.kill()
            word, began = standby.hear("third-2", "fourth-1")
            took.append((began - killed) / 1e9)
            crew[:] = [standby, Member(url)]
            crew[1].hear("ready")
            if word == "third-2":
                standby.hear("fifth-1")
            time.sleep(random.uniform(1, 1.5) * POLL)
    return took


def adoption(url: str) -> float:
    """Seconds from the kill until the next attempt of every saga of the killed worker has begun on the other one."""
    with members(url, 2) as (active, standby):
        active.tell(f"start {MANY} 3600")
        active.hear("started")
        standby.tell(f"expect {MANY}")
        standby.hear("expecting")
        killed = active.kill()
        return (standby.hear("expected")[1] - killed) / 1e9


def idle(server: Server) -> float:
    """Commands that the server carries out per second, those inside scripts counted too."""
    with members(server.url, 1) as (worker,):
        worker.tell(f"sleep {MANY}")
        worker.hear("started")
        time.sleep(5)  # until the last of them sleeps
        server.cli("CONFIG", "RESETSTAT")
        time.sleep(IDLE_SECONDS)
        lines = str(server.cli("INFO", "commandstats")).splitlines()
        calls = [line.partition(":calls=") for line in lines if line.startswith("cmdstat_")]
        carried_out = sum(int(rest.partition(",")[0]) for name, _, rest in calls if "config" not in name)
        return carried_out / IDLE_SECONDS


def results(kills: int = KILLS) -> Iterator[tuple[str, str]]:
    """What was measured, and its figure."""
    with standalone("appendfsync everysec", aof=True) as server:
        yield f"commands/s of an idle runtime, {MANY:,} sagas asleep", f"{idle(server):.1f}"
    with standalone("appendfsync everysec", aof=True) as server:
        yield f"{MANY:,} orphaned sagas run elsewhere after", f"{adoption(server.url):.1f} s"
    with standalone("appendfsync everysec", aof=True) as server:
        took = sorted(takeover(server.url, kills))
    title = f"SIGKILL to the next step on a standby, {kills} kills"
    yield f"{title}, p50", f"{statistics.median(took):.3f} s"
    yield f"{title}, p99 (the worst of them)", f"{took[-1]:.3f} s"
    yield "the same on another machine, at most: the lease and a poll", f"{LEASE + POLL:.0f} s"


def main(kills: int) -> None:
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for title, figure in results(kills):
        print(f"{title:70} {figure:>10}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else KILLS)
