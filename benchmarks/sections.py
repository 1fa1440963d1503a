"""The sections of the one table: each runs a benchmark and makes rows of what it found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict

import trio
from benchmarks import http_middleware, limits, locks, recovery, saga_memory, saga_redis, scale
from benchmarks.peers import comparison, standby
from benchmarks.peers.catalogue import ENGINE
from benchmarks.peers.driving import STEPS
from benchmarks.peers.environments import NotInstalled
from benchmarks.report import Row

PEERS = f"sagas of {STEPS} steps"
DURABILITY = "sagas of 3 steps"
LIMITS, RATIOS = "limits", "ratios"
BRIEF = 2.0  # seconds of one measurement of locks and of HTTP, which run one by one in greater length
SCALE = "steps, as things grow"
COMMIT, TRIP = "commit of a step, 1 saga in flight", "round trip of the script, beside it"


def of_limits() -> Iterator[Row]:
    """What the disk, the server and a round trip can do."""
    for limit in limits.results():
        figure = "" if limit.per_second else "not measured"
        setting = "; ".join(filter(None, (limit.setting, limit.missing)))
        yield Row(LIMITS, limit.what, limit.per_second or None, limit.p50_ms, limit.p99_ms, setting, figure)


def of_peers() -> Iterator[Row]:
    """The engine and its peers, with the same work."""
    for row in comparison.results():
        yield compared(PEERS, row)


def compared(section: str, row: comparison.Compared) -> Row:
    """The row of one of them."""
    figure = "" if row.per_second else "not measured"
    cost = "" if row.processor_ms is None else f"processor time {row.processor_ms:.1f} ms"
    setting = "; ".join(filter(None, (row.durability, cost, row.missing)))
    more = {"compared": asdict(row)}
    what = f"{row.name}, {row.in_flight} in flight"
    return Row(section, what, row.per_second or None, row.p50_ms, row.p99_ms, setting, figure, more)


def of_payloads() -> Iterator[Row]:
    """The same with larger payloads, more briefly."""
    for payload in (1_000, 10_000):
        for row in comparison.results(seconds=2.0, payload=payload, rounds=1):
            yield compared(f"{PEERS} that take and return {payload / 1000:g} KB", row)


def of_standby() -> Iterator[Row]:
    """The engine and its peers, when a worker is killed."""
    section = "SIGKILL in a step: seconds to the next one"
    for row in standby.results():
        figure = "not measured" if row.missing else standby.figure(row)
        yield Row(section, f"{row.name}, {row.where}", setting=row.missing or "default settings", figure=figure)


def of_durability() -> Iterator[Row]:
    """The engine by what a write survives, beside its limits."""
    for result in saga_redis.results():
        for name, (rate, p50, p99) in (("engine", result.engine), ("connection", result.gateway)):
            what = f"{name}, {result.lanes} in flight"
            share = f"{result.title}; {rate / result.skeleton:.0%} of the skeleton"
            yield Row(DURABILITY, what, rate, p50, p99, share, more={"share": rate / result.skeleton})
        yield Row(DURABILITY, f"skeleton, {result.lanes} in flight", result.skeleton, setting=result.title)
    for lanes, rate, _, points, skeleton in saga_memory.results():
        share = f"memory storage; {rate / skeleton:.0%} of a skeleton"
        yield Row(DURABILITY, f"engine, {lanes} in flight", rate, points[49], points[98], share)


def of_memory() -> Iterator[Row]:
    """What a saga takes."""
    section = "bytes of a saga of 3 steps"
    finished = saga_redis.memory()
    sizes = [
        ("in flight, memory storage, all together", trio.run(saga_memory.held)),
        *scale.memory(),
        ("finished, in the server", finished),
    ]
    for what, size in sizes:
        yield Row(section, what, figure=f"{size:,.0f} bytes", more={"bytes": size})


def of_scale() -> Iterator[Row]:
    """What a step costs as things grow."""
    for each in scale.costs():
        cost = f"{each.worker_us:.0f} µs of the workers and {each.server_us:.0f} µs of the server"
        setting = f"processor time of a step: {each.step_us:.0f} µs, {cost}"
        more = {"worker_us": each.worker_us, "server_us": each.server_us}
        yield Row(SCALE, f"{each.what}: {each.value}", each.steps_per_second, setting=setting, more=more)
    took = scale.commit_times()
    for what, p50, p99 in ((COMMIT, took.p50, took.p99), (TRIP, took.trip_p50, took.trip_p99)):
        yield Row(SCALE, what, 1000 / p50, p50, p99, "appendfsync always, measured in turn")


def of_recovery() -> Iterator[Row]:
    """The engine, when a worker is killed or idle."""
    for what, figure in recovery.results():
        yield Row("recovery and idleness", what, figure=figure, setting="default settings, appendfsync everysec")


def of_locks() -> Iterator[Row]:
    """Locks beside those of other libraries."""
    for each in locks.results(BRIEF):
        own = "dotmac-tasks" if each.name == "this" else each.name
        if each.missing:
            yield Row("locks", own, setting=each.missing, figure="not measured")
            continue
        yield Row("locks", f"{own}, one caller, a free lock", each.one, setting="no AOF; acquire and release")
        yield Row("locks", f"{own}, 100 callers, a lock each", each.many, setting="no AOF; acquire and release")
        setting = f"no AOF; hand-offs; {each.commands:.2g} commands each; p99 from release to grant"
        yield Row("locks", f"{own}, 100 callers, one lock", each.handed, p99_ms=each.p99_ms, setting=setting)


def of_http() -> Iterator[Row]:
    """The middleware beside an app without it, and beside two packages."""
    section = "HTTP requests"
    try:
        for row in http_middleware.results(BRIEF):
            share = f"{row.figures.rate / row.base:.0%} of the app without; AOF, everysec"
            yield Row(section, f"{row.server}: {row.what}", row.figures.rate, p99_ms=row.figures.p99_ms, setting=share)
    except NotInstalled as reason:
        yield Row(section, "the middleware and its peers", setting=str(reason), figure="not measured")


SECTIONS: dict[str, Callable[[], Iterator[Row]]] = {
    "limits": of_limits,
    "peers": of_peers,
    "payloads": of_payloads,
    "standby": of_standby,
    "durability": of_durability,
    "scale": of_scale,
    "memory": of_memory,
    "recovery": of_recovery,
    "locks": of_locks,
    "http": of_http,
}


def ratios(rows: list[Row]) -> Iterator[Row]:
    """What the rows say of each other: the engine by its limits and by its peers."""
    found = [comparison.Compared(**row.more["compared"]) for row in rows if row.section == PEERS]
    own = {row.in_flight: row for row in found if row.name == ENGINE.name}
    for row in found:
        ratio = comparison.ratio(own[row.in_flight], row)
        if row.name != ENGINE.name and ratio is not None:
            what = f"{ENGINE.name} by {row.name}, {row.in_flight} in flight"
            yield Row(
                RATIOS, what, figure=f"{ratio:.2f}", setting="sagas/s, median of the rounds", more={"ratio": ratio}
            )
    commit, trip = (next((row for row in rows if row.what == what), None) for what in (COMMIT, TRIP))
    if commit and trip:
        for name, of_commit, of_trip in (("p50", commit.p50_ms, trip.p50_ms), ("p99", commit.p99_ms, trip.p99_ms)):
            ratio = (of_commit or math.nan) / (of_trip or math.nan)
            what = f"commit of a step by a round trip, {name}"
            yield Row(RATIOS, what, figure=f"{ratio:.2f}", setting="appendfsync always", more={"ratio": ratio})
