"""Recent activity for the overview: attempts of this process by the hooks, rates of all workers by stored counts."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ...metrics import register_metrics_hooks
from ...models import OperationStatus, WorkerInfo

WINDOW = 300
"""Seconds of attempts that are kept."""

RATE_OVER = 60.0
"""Seconds over which rates are formed, once counts of so long a time are there."""

SAMPLE_EVERY = 5.0
"""Seconds between two counts of the storage."""

GONE_KEPT = 3600.0
"""Seconds for which a worker that is gone is shown."""

MOST_OPERATIONS = 100
_MOST_WORKERS = 1000
_MOST_ATTEMPTS = 2000  # kept per operation, which is enough for a percentile
_BARS = 60


@dataclass(frozen=True, slots=True)
class OperationFigures:
    """The last five minutes of one operation in this process.

    Attributes:
        attempts: Attempts that ended. A lower bound where more than 2,000 ended.
        failed: Attempts among them that failed.
        median: Seconds.
        p95: Seconds.
    """

    operation: str
    attempts: int
    failed: int
    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The last five minutes of this process.

    Attributes:
        attempts: Attempts that ended, per second.
        failed: Attempts that failed.
        retries: Retries that were scheduled.
        bars: Attempts per five seconds, oldest first.
        operations: Figures of each operation, most attempts first.
    """

    attempts: float
    failed: int
    retries: int
    bars: list[int]
    operations: list[OperationFigures]


@dataclass(slots=True)
class _Second:
    at: int
    attempts: int = 0
    failed: int = 0
    retries: int = 0


class Activity:
    """Counts attempts of this process second by second, and keeps their durations by operation.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[_Second] = deque(maxlen=WINDOW)
        self._operations: dict[str, deque[tuple[float, float, bool]]] = {}

    def install(self) -> Callable[[], None]:
        """Register the hooks; returns a function that removes them."""
        return register_metrics_hooks(
            saga_step_completed_hook=self._completed,
            saga_step_compensated_hook=self._completed,
            saga_step_failed_hook=self._failed,
            saga_step_retried_hook=self._retried,
        )

    def summary(self) -> Summary:
        """The last five minutes."""
        now = int(self._clock())
        lately = [second for second in self._seconds if second.at > now - WINDOW]
        bars = [0] * _BARS
        for second in lately:
            bars[_BARS - 1 - (now - second.at) * _BARS // WINDOW] += second.attempts
        span = min(WINDOW, now - lately[0].at + 1) if lately else 1
        figures = [self._figures(name) for name in list(self._operations)]
        return Summary(
            attempts=sum(second.attempts for second in lately) / span,
            failed=sum(second.failed for second in lately),
            retries=sum(second.retries for second in lately),
            bars=bars,
            operations=sorted(filter(None, figures), key=lambda each: (-each.attempts, each.operation)),
        )

    def _figures(self, name: str) -> OperationFigures | None:
        ended = self._operations[name]
        while ended and ended[0][0] <= self._clock() - WINDOW:
            ended.popleft()
        if not ended:
            del self._operations[name]
            return None
        durations = sorted(seconds for _, seconds, _ in ended)
        return OperationFigures(
            operation=name,
            attempts=len(ended),
            failed=sum(failed for _, _, failed in ended),
            median=statistics.median(durations),
            p95=durations[int(len(durations) * 0.95)],
        )

    def _now(self) -> _Second:
        at = int(self._clock())
        if not self._seconds or self._seconds[-1].at != at:
            self._seconds.append(_Second(at))
        return self._seconds[-1]

    def _ended(self, operation: str, seconds: float, *, failed: bool) -> None:
        second = self._now()
        second.attempts += 1
        second.failed += failed
        ended = self._operations.get(operation)
        if ended is None:
            if len(self._operations) >= MOST_OPERATIONS:
                return  # their attempts count, their durations do not
            ended = self._operations[operation] = deque(maxlen=_MOST_ATTEMPTS)
        ended.append((self._clock(), seconds, failed))

    def _completed(self, operation: str, _tenant_id: str, details: dict[str, Any]) -> None:
        self._ended(operation, details["seconds"], failed=False)

    def _failed(self, operation: str, _tenant_id: str, details: dict[str, Any]) -> None:
        self._ended(operation, details["seconds"], failed=True)

    def _retried(self, _operation: str, _tenant_id: str, _details: dict[str, Any]) -> None:
        self._now().retries += 1


@dataclass(frozen=True, slots=True)
class Throughput:
    """Sagas per second of all workers.

    Attributes:
        started: None until two counts are there.
        ended: Likewise.
        seconds: The time between the first and the last count that the rates are formed of.
    """

    started: float | None
    ended: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class GoneWorker:
    """A worker that was listed lately and is not any more: it stopped, or was lost and its sagas were taken over.

    Attributes:
        worker: As it was listed last.
        seconds: Since then.
    """

    worker: WorkerInfo
    seconds: float


class WorkersSeen:
    """Keeps workers for an hour after they were listed last: the storage forgets one that owns nothing.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[float, WorkerInfo]] = {}

    def gone(self, listed: list[WorkerInfo]) -> list[GoneWorker]:
        """Note the workers that are listed now; the others of the last hour, latest first."""
        now = self._clock()
        for worker in listed:
            self._seen.pop(worker.worker_id, None)  # so that the order is that of the last look
            self._seen[worker.worker_id] = (now, worker)
        for worker_id, (at, _) in list(self._seen.items()):
            if now - at > GONE_KEPT or len(self._seen) > _MOST_WORKERS:
                del self._seen[worker_id]
        present = {worker.worker_id for worker in listed}
        kept = [(at, worker) for at, worker in self._seen.values() if worker.worker_id not in present]
        return [GoneWorker(worker, now - at) for at, worker in reversed(kept)]


class StoredCounts:
    """Forms rates from counts of stored sagas.

    The service counts every `SAMPLE_EVERY` seconds, whether pages are looked at or not, so the rates do not depend on
    who looks when. Where nothing counts in the background, each look at a page adds a count.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int, int]] = deque()

    def note(self, counts: dict[OperationStatus, int]) -> None:
        """Add a count that was made just now."""
        now = self._clock()
        if self._samples and now - self._samples[-1][0] < SAMPLE_EVERY / 2:
            return
        ended = sum(count for status, count in counts.items() if status.is_final)
        self._samples.append((now, sum(counts.values()), ended))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_OVER:  # noqa: PLR2004 - a rate needs two
            self._samples.popleft()

    def throughput(self) -> Throughput:
        """The rates. Sagas whose retention ends lower the counts; such an interval counts as zero."""
        if len(self._samples) < 2:  # noqa: PLR2004 - a rate needs two
            return Throughput(None, None, 0.0)
        span = self._samples[-1][0] - self._samples[0][0]
        steps = list(pairwise(self._samples))
        started = sum(max(after[1] - before[1], 0) for before, after in steps)
        ended = sum(max(after[2] - before[2], 0) for before, after in steps)
        return Throughput(started / span, ended / span, span)
