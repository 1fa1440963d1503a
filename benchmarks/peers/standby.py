"""How soon another process goes on with what a killed one left, at everybody's default settings.

``python -m benchmarks.peers.standby [CAP]``. The worker that runs the third of five one-second steps gets SIGKILL in
the middle of it. Told are the seconds until a step begins elsewhere, or that none did within so many seconds: on a
second worker that stands by, and, for those that tie the work to a name or an address, on the same worker started
again at once. All are on one machine, where the engine learns of a death from the kernel; between machines it waits
for the lease (`recovery.py` prints it).
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the servers of the tests, and the other benchmarks

from benchmarks.peers.catalogue import PEERS, STANDBY, Peer  # noqa: E402
from benchmarks.peers.driving import STEP_SECONDS, STEPS  # noqa: E402
from benchmarks.peers.environments import NotInstalled  # noqa: E402

CAP = 30.0
START_SECONDS = 30.0
THIRD = 3


class Silence(Exception):
    """Nothing was said in time."""


@dataclass(frozen=True)
class Said:
    """A line that a worker printed: a step that begins, or that it is ready."""

    process: subprocess.Popen[str]
    number: int
    at: int


class Crew:
    """Workers of one peer, and what they say."""

    def __init__(self, peer: Peer, address: str) -> None:
        self._peer, self._address = peer, address
        self._processes = list[subprocess.Popen[str]]()
        self._said = queue.Queue[Said]()

    def add(self, name: str) -> subprocess.Popen[str]:
        """Start a worker."""
        process = self._peer.start("serve", self._address, name)
        self._processes.append(process)
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def end(self) -> None:
        """Kill all of them."""
        for process in self._processes:
            process.kill()
            process.wait()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            word, *numbers = line.split() or [""]
            if word == "ready":
                self._said.put(Said(process, 0, 0))
            elif word == "step":
                self._said.put(Said(process, int(numbers[0]), int(numbers[1])))

    def hear(self, seconds: float, steps: Sequence[int]) -> Said:
        """Wait until one of these steps begins (0: until a worker is ready)."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                said = self._said.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                raise Silence from None
            if said.number in steps:
                return said


@contextmanager
def crew_of(peer: Peer) -> Iterator[Crew]:
    """No worker yet, and a store for them to share."""
    with peer.backend() as address:
        crew = Crew(peer, address)
        try:
            yield crew
        finally:
            crew.end()


def measured(peer: Peer, cap: float, *, standby: bool) -> float | None:
    """Seconds from the kill until a step begins elsewhere; None if none does."""
    with crew_of(peer) as crew:
        names = ["first", "second"] if standby else ["first"]
        starters = [crew.add(name).stdin for name in names]
        for _ in names:
            crew.hear(START_SECONDS, [0])
        assert starters[0] is not None
        starters[0].write("start\n")
        starters[0].flush()
        victim = crew.hear(START_SECONDS, [THIRD]).process
        time.sleep(STEP_SECONDS / 2)
        victim.kill()
        killed = time.monotonic_ns()
        if not standby:
            crew.add("first")
        try:
            while True:
                said = crew.hear(cap - (time.monotonic_ns() - killed) / 1e9, range(THIRD, STEPS + 1))
                if said.process is not victim:
                    return (said.at - killed) / 1e9
        except Silence:
            return None


@dataclass(frozen=True)
class Recovered:
    """How one of them recovered: seconds, None if it did not in time, and what kept it from being measured."""

    name: str
    where: str
    seconds: float | None
    missing: str = ""


def results(cap: float = CAP) -> Iterator[Recovered]:
    """Each peer, and each way in which it can recover."""
    for peer in PEERS:
        for way in peer.recovers:
            took, missing = None, ""
            try:
                took = measured(peer, cap, standby=way == STANDBY)
            except NotInstalled as reason:
                missing = f"not installed: {reason}"
            except (Silence, TimeoutError):
                missing = "it did not begin in time"
            yield Recovered(peer.name, way, took, missing)


def figure(row: Recovered, cap: float = CAP) -> str:
    """The row as text."""
    return row.missing or (f"> {cap:.0f} s" if row.seconds is None else f"{row.seconds:.2f} s")


def main(cap: float = CAP) -> None:
    for row in results(cap):
        print(f"{row.name:25}{row.where:20}{figure(row, cap)}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
