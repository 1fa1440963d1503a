"""How soon a second worker goes on with what a killed one left, at everybody's default settings.

``python -m benchmarks.peers.standby [CAP]``. Two workers share the work of one; the one that runs the third of five
one-second steps gets SIGKILL in the middle of it. Told are the seconds until a step begins on the other one, or that
none did within so many seconds. Both are on one machine, where the engine learns of a death from the kernel; between
machines it waits for the lease (`recovery.py` prints it).
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

from benchmarks.peers.catalogue import PEERS, Peer  # noqa: E402
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

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self.processes = processes
        self._said = queue.Queue[Said]()
        for process in processes:
            threading.Thread(target=self._listen, args=(process,), daemon=True).start()

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
def crew_of(peer: Peer, address: str) -> Iterator[Crew]:
    """Two workers that are ready."""
    processes = []
    try:
        for name in ("first", "second"):
            processes.append(peer.start("serve", address, name))
        crew = Crew(processes)
        for _ in processes:
            crew.hear(START_SECONDS, [0])
        yield crew
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def takeover(peer: Peer, cap: float) -> float | None:
    """Seconds from the kill until the other one begins a step; None if it does not."""
    with peer.backend() as address, crew_of(peer, address) as crew:
        starter = crew.processes[0].stdin
        assert starter is not None
        starter.write("start\n")
        starter.flush()
        running = crew.hear(START_SECONDS, [THIRD])
        time.sleep(STEP_SECONDS / 2)
        running.process.kill()
        killed = time.monotonic_ns()
        try:
            while True:
                said = crew.hear(cap - (time.monotonic_ns() - killed) / 1e9, range(THIRD, STEPS + 1))
                if said.process is not running.process:
                    return (said.at - killed) / 1e9
        except Silence:
            return None


def results(cap: float = CAP) -> Iterator[tuple[str, str]]:
    """Each peer's name and how long it took."""
    for peer in PEERS:
        if not peer.has_standby:
            yield peer.name, "no standby: the server calls the one service that is registered"
            continue
        try:
            took = takeover(peer, cap)
        except (NotInstalled, Silence) as reason:
            yield peer.name, f"not measured: {reason or 'it did not begin in time'}"
        else:
            yield peer.name, f"> {cap:.0f} s" if took is None else f"{took:.2f} s"


def main(cap: float = CAP) -> None:
    for name, took in results(cap):
        print(f"{name:20}{took}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
