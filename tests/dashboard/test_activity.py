"""The overview's figures are those of the last minutes, and cost little memory."""

from __future__ import annotations

from datetime import UTC, datetime

from dotmac.tasks.metrics import emit
from dotmac.tasks.models import OperationStatus, WorkerInfo
from dotmac.tasks.service.dashboard.activity import (
    GONE_KEPT,
    MOST_OPERATIONS,
    SAMPLE_EVERY,
    WINDOW,
    Activity,
    GoneWorker,
    OperationFigures,
    StoredCounts,
    Throughput,
    WorkersSeen,
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_attempts_are_counted_and_forgotten() -> None:
    clock = Clock()
    activity = Activity(clock)
    remove = activity.install()
    for seconds in (0.1, 0.2, 0.3):
        emit("saga_step_completed", "op", "t", seconds=seconds)
    clock.now += 9
    emit("saga_step_failed", "op", "t", seconds=5.0)
    emit("saga_step_retried", "op", "t")
    emit("saga_step_compensated", "op", "t", seconds=0.1)
    remove()
    emit("saga_step_completed", "op", "t", seconds=1.0)
    summary = activity.summary()
    assert (summary.attempts, summary.failed, summary.retries) == (0.5, 1, 1)
    assert summary.bars[-2:] == [3, 2]
    assert sum(summary.bars) == 5
    clock.now += WINDOW
    later = activity.summary()
    assert (later.attempts, later.operations, sum(later.bars)) == (0, [], 0)


def test_durations_are_told_by_operation() -> None:
    clock = Clock()
    activity = Activity(clock)
    remove = activity.install()
    for seconds in (0.1, 0.2, 0.3):
        emit("saga_step_completed", "charge", "t", seconds=seconds)
    emit("saga_step_failed", "ship", "t", seconds=5.0)
    clock.now += WINDOW - 1
    emit("saga_step_completed", "ship", "t", seconds=4.0)
    remove()
    charge, ship = activity.summary().operations
    assert charge == OperationFigures("charge", attempts=3, failed=0, median=0.2, p95=0.3)
    assert ship == OperationFigures("ship", attempts=2, failed=1, median=4.5, p95=5.0)
    clock.now += 1
    (ship,) = activity.summary().operations
    assert (ship.operation, ship.attempts, ship.failed) == ("ship", 1, 0)


def test_memory_is_bounded() -> None:
    clock = Clock()
    activity = Activity(clock)
    uninstall = activity.install()
    for second in range(WINDOW + 50):
        clock.now = 1000.0 + second
        for _ in range(2 if second else 500):
            emit("saga_step_completed", "op", "t", seconds=0.1)
    uninstall()
    assert len(activity._seconds) == WINDOW
    assert len(activity._operations["op"]) <= 2000


def test_operations_are_bounded_too() -> None:
    activity = Activity(Clock())
    uninstall = activity.install()
    for number in range(MOST_OPERATIONS + 50):
        emit("saga_step_completed", f"op-{number}", "t", seconds=0.1)
    for _ in range(5000):
        emit("saga_step_completed", "op-0", "t", seconds=0.1)
    uninstall()
    assert len(activity.summary().operations) == MOST_OPERATIONS
    assert len(activity._operations["op-0"]) == 2000


def counts(completed: int, running: int) -> dict[OperationStatus, int]:
    return {OperationStatus.COMPLETED: completed, OperationStatus.IN_PROGRESS: running}


def test_rates_are_those_of_the_last_minute_whenever_somebody_looks() -> None:
    """Idle for two minutes, then 300 sagas: five a second over the last minute, for each look."""
    clock = Clock()
    stored = StoredCounts(clock)
    stored.note(counts(10, 0))
    assert stored.throughput() == Throughput(None, None, 0.0)
    for _ in range(24):
        clock.now += SAMPLE_EVERY
        stored.note(counts(10, 0))
    clock.now += SAMPLE_EVERY
    stored.note(counts(310, 0))
    assert stored.throughput() == Throughput(5.0, 5.0, 60.0)
    for _ in range(2):  # looks between two samples change nothing
        clock.now += 1
        stored.note(counts(320, 0))
        assert stored.throughput() == Throughput(5.0, 5.0, 60.0)


def test_rates_bear_long_pauses_and_the_end_of_retention() -> None:
    clock = Clock()
    stored = StoredCounts(clock)
    stored.note(counts(10, 5))
    clock.now += 120
    stored.note(counts(130, 5))
    assert stored.throughput() == Throughput(1.0, 1.0, 120.0)  # over the time that it says
    clock.now += 30
    stored.note(counts(5, 0))  # retention removed most of them
    assert stored.throughput() == Throughput(0.8, 0.8, 150.0)
    for _ in range(100):
        clock.now += SAMPLE_EVERY
        stored.note(counts(5, 0))
    assert stored.throughput() == Throughput(0.0, 0.0, 60.0)
    assert len(stored._samples) < 20


def worker(name: str) -> WorkerInfo:
    now = datetime(2026, 12, 1, tzinfo=UTC)
    return WorkerInfo(worker_id=name, started_at=now, lease_until=now, host="host", pid=1, alive=True, state="alive")


def test_workers_that_are_gone_are_kept_for_an_hour() -> None:
    clock = Clock()
    seen = WorkersSeen(clock)
    a, b = worker("a"), worker("b")
    assert seen.gone([a, b]) == []
    clock.now += 10
    assert seen.gone([b]) == [GoneWorker(a, 10.0)]
    clock.now += GONE_KEPT - 10
    assert seen.gone([]) == [GoneWorker(b, GONE_KEPT - 10), GoneWorker(a, GONE_KEPT)]
    clock.now += 5
    assert seen.gone([]) == [GoneWorker(b, GONE_KEPT - 5)]
    for number in range(3000):
        seen.gone([worker(str(number))])
    assert len(seen.gone([])) <= 1000
