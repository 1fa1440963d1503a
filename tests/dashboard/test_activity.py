"""The overview's figures are those of the last minutes, and cost little memory."""

from __future__ import annotations

from dotmac.tasks.metrics import emit
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.service.dashboard.activity import WINDOW, Activity, StoredCounts, Throughput


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
    assert (summary.median, summary.p95) == (0.2, 5.0)
    assert summary.bars[-2:] == [3, 2]
    assert sum(summary.bars) == 5
    clock.now += WINDOW
    later = activity.summary()
    assert (later.attempts, later.median, sum(later.bars)) == (0, None, 0)


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
    assert max(len(second.durations) for second in activity._seconds) <= 200


def counts(completed: int, running: int) -> dict[OperationStatus, int]:
    return {OperationStatus.COMPLETED: completed, OperationStatus.IN_PROGRESS: running}


def test_rates_are_differences_of_counts() -> None:
    clock = Clock()
    stored = StoredCounts(clock)
    stored.note(counts(10, 5))
    assert stored.throughput() == Throughput(None, None)
    clock.now += 1
    stored.note(counts(11, 5))  # too soon to tell anything
    assert stored.throughput() == Throughput(None, None)
    clock.now += 9
    stored.note(counts(30, 15))
    assert stored.throughput() == Throughput(started=3.0, ended=2.0)
    clock.now += 10
    stored.note(counts(5, 0))  # retention removed most of them
    assert stored.throughput() == Throughput(0.0, 0.0)
    for _ in range(100):
        clock.now += 2
        stored.note(counts(5, 0))
    assert len(stored._samples) < 40
