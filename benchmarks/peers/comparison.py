"""Sagas of five steps that do nothing, one at a time and a hundred at once, by the engine and by its peers.

``python -m benchmarks.peers.comparison [SECONDS] [PAYLOAD] [ROUNDS]``. Each step is durable before the next one begins;
the rows say what that means where. Each step takes and returns a payload of so many bytes. Everybody runs in turn, in
several rounds, and the best round of each counts, since what disturbs one only makes it slower. Caller and worker
share one process. Beside them is the skeleton of `skeleton.py` with as many steps, which is the practical limit.

docket, taskiq and streaq are queues: a step is a task that adds the next one, as their users chain them. They keep no
state of a saga, no history and no undoing, so they are a bar for speed, and no equals. DBOS and Restate are.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the servers of the tests, and the other benchmarks

from benchmarks.peers.backends import redis  # noqa: E402
from benchmarks.peers.catalogue import FSYNCED, PEERS, Peer  # noqa: E402
from benchmarks.peers.driving import IN_FLIGHT, STEPS  # noqa: E402
from benchmarks.peers.environments import NotInstalled  # noqa: E402
from benchmarks.skeleton import sagas_per_second  # noqa: E402

SECONDS, PAYLOAD, ROUNDS = 4.0, 100, 3
PATIENCE = 120.0  # beyond what was asked for: a peer that takes longer is stuck
SKELETON_SAGAS = {1: 600, 100: 6_000}


@dataclass(frozen=True)
class Compared:
    """What one of them reached with so many in flight, at best and in every round; else why there are no figures."""

    name: str
    durability: str
    in_flight: int
    per_second: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    missing: str = ""
    rounds: tuple[float, ...] = ()


def once(peer: Peer, seconds: float, payload: int) -> list[Compared]:
    """Measure one peer, once. Its process is killed when it has said everything: not each of them ends by itself."""
    try:
        with peer.backend() as address, tempfile.TemporaryFile("w+") as errors:
            with peer.start("measure", address, str(seconds), str(payload), errors=errors) as process:
                assert process.stdout is not None
                patience = threading.Timer(seconds * len(IN_FLIGHT) + PATIENCE, process.kill)
                patience.start()
                rows = list(islice(_rows(peer, process.stdout), len(IN_FLIGHT)))
                patience.cancel()
                process.kill()
            errors.seek(0)
            complaints = errors.read().strip().splitlines()
    except NotInstalled as reason:
        return _missing(peer, f"not installed: {reason}")
    except TimeoutError as reason:
        return _missing(peer, f"failed: {reason}")
    if len(rows) < len(IN_FLIGHT):
        return _missing(peer, f"failed: {complaints[-1] if complaints else 'it said nothing'}")
    return rows


def _rows(peer: Peer, printed: Iterable[str]) -> Iterator[Compared]:
    for line in printed:
        if line.startswith("{"):
            row: dict[str, Any] = json.loads(line)
            yield Compared(
                peer.name, peer.durability, row["in_flight"], row["per_second"], row["p50_ms"], row["p99_ms"]
            )


def _missing(peer: Peer, reason: str) -> list[Compared]:
    return [Compared(peer.name, peer.durability, in_flight, missing=reason) for in_flight in IN_FLIGHT]


def skeleton(payload: int) -> list[Compared]:
    """The practical limit, once."""
    rows, result = list[Compared](), "x" * payload
    with redis() as url:
        for lanes, count in SKELETON_SAGAS.items():
            rate = trio.run(sagas_per_second, url, lanes, count, STEPS, result)
            rows.append(Compared("the skeleton", FSYNCED, lanes, rate))
    return rows


def results(
    seconds: float = SECONDS, payload: int = PAYLOAD, rounds: int = ROUNDS, peers: Sequence[Peer] = PEERS
) -> Iterator[Compared]:
    """The best round of everybody, in the order of `peers` and then the skeleton."""
    found = dict[tuple[str, int], list[Compared]]()
    for _ in range(rounds):
        for row in [row for peer in peers for row in once(peer, seconds, payload)] + skeleton(payload):
            found.setdefault((row.name, row.in_flight), []).append(row)
    for rows in found.values():
        rates = tuple(row.per_second for row in rows)
        yield replace(max(rows, key=lambda row: row.per_second), rounds=rates)


def figures(row: Compared) -> str:
    """The row as text."""
    if row.missing:
        return row.missing
    times = "" if row.p50_ms is None else f"{row.p50_ms:>10,.1f}{row.p99_ms:>10,.1f}"
    return f"{row.per_second:>10,.0f}{row.per_second * STEPS:>10,.0f}{times or 20 * ' '}   {row.durability}"


def main(seconds: float = SECONDS, payload: float = PAYLOAD, rounds: float = ROUNDS) -> None:
    print(f"{'':25}{'in flight':>10}{'sagas/s':>10}{'steps/s':>10}{'p50 ms':>10}{'p99 ms':>10}   durable when")
    for row in results(seconds, int(payload), int(rounds)):
        print(f"{row.name:25}{row.in_flight:>10}{figures(row)}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
