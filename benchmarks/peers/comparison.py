"""Sagas of five steps that do nothing, one at a time and a hundred at once, by the engine and by its peers.

``python -m benchmarks.peers.comparison [SECONDS] [PAYLOAD] [ROUNDS]``. Each step is durable before the next one begins;
the rows say what that means where. Each step takes and returns a payload of so many bytes. Everybody runs in turn, in
several rounds, and the best round of each counts, since what disturbs one only makes it slower; ratios are of the same
round. The processor time of a saga is that of all processes, the server included. Caller and worker share one process.
Beside them is the skeleton of `skeleton.py` with as many steps, which is the practical limit.

docket, taskiq and streaq are queues: a step is a task that adds the next one, as their users chain them. They keep no
state of a saga, no history and no undoing, so they are a bar for speed, and no equals. DBOS and Restate are.
"""

from __future__ import annotations

import json
import statistics
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

from benchmarks.peers import processor  # noqa: E402
from benchmarks.peers.backends import redis  # noqa: E402
from benchmarks.peers.catalogue import FSYNCED, PEERS, Peer  # noqa: E402
from benchmarks.peers.driving import IN_FLIGHT, STEPS  # noqa: E402
from benchmarks.peers.environments import NotInstalled  # noqa: E402
from benchmarks.skeleton import sagas_per_second  # noqa: E402

SKELETON = "the skeleton"
SECONDS, PAYLOAD, ROUNDS = 3.0, 100, 4
PATIENCE = 120.0  # beyond what was asked for: a peer that takes longer is stuck
SKELETON_SAGAS = {1: 600, 100: 6_000}


@dataclass(frozen=True)
class Compared:
    """What one of them reached with so many in flight; without figures, why there are none.

    Attributes:
        processor_ms: Of a saga, over all processes that took part, the server included.
        rounds: The rates of all rounds, in the order of the rounds.
    """

    name: str
    durability: str
    in_flight: int
    per_second: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    processor_ms: float | None = None
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
    before = 0.0
    for line in printed:
        if line == "begin\n":
            before = processor.seconds()
        elif line.startswith("{"):
            row: dict[str, Any] = json.loads(line)
            cost = 1000 * (processor.seconds() - before) / row["workflows"]
            yield Compared(
                peer.name, peer.durability, row["in_flight"], row["per_second"], row["p50_ms"], row["p99_ms"], cost
            )


def _missing(peer: Peer, reason: str) -> list[Compared]:
    return [Compared(peer.name, peer.durability, in_flight, missing=reason) for in_flight in IN_FLIGHT]


def skeleton(payload: int) -> list[Compared]:
    """The practical limit, once."""
    rows, result = list[Compared](), "x" * payload
    with redis() as url:
        for lanes, count in SKELETON_SAGAS.items():
            before = processor.seconds()
            rate = trio.run(sagas_per_second, url, lanes, count, STEPS, result)
            cost = 1000 * (processor.seconds() - before) / count
            rows.append(Compared(SKELETON, FSYNCED, lanes, rate, processor_ms=cost))
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
        best = max(rows, key=lambda row: row.per_second)
        costs = [row.processor_ms for row in rows if row.processor_ms is not None]
        yield replace(best, processor_ms=min(costs, default=None), rounds=tuple(row.per_second for row in rows))


def ratio(one: Compared, other: Compared) -> float | None:
    """How often the other's rate goes into the one's: the median over the rounds, in each of which both ran."""
    pairs = [mine / theirs for mine, theirs in zip(one.rounds, other.rounds, strict=True) if theirs]
    return statistics.median(pairs) if pairs else None


def figures(row: Compared) -> str:
    """The row as text."""
    if row.missing:
        return row.missing
    numbers = (row.per_second, row.per_second * STEPS, row.p50_ms, row.p99_ms, row.processor_ms)
    texts = [
        f"{'' if number is None else format(number, f',.{digits}f'):>10}"
        for number, digits in zip(numbers, (0, 0, 1, 1, 1), strict=True)
    ]
    return f"{''.join(texts)}   {row.durability}"


def main(seconds: float = SECONDS, payload: float = PAYLOAD, rounds: float = ROUNDS) -> None:
    columns = "".join(f"{name:>10}" for name in ("in flight", "sagas/s", "steps/s", "p50 ms", "p99 ms", "CPU ms"))
    print(f"{'':25}{columns}   durable when")
    for row in results(seconds, int(payload), int(rounds)):
        print(f"{row.name:25}{row.in_flight:>10}{figures(row)}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
