"""What went on lately, for the overview: of this process by the hooks, of all workers by counting what is stored."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...metrics import register_metrics_hooks
from ...models import OperationStatus

WINDOW = 300
"""Seconds that are remembered."""

_BARS = 60
_MOST_DURATIONS = 200  # kept per second, which is enough for a percentile
_SAMPLE_EVERY = 2.0
_RATE_OVER = 60.0


@dataclass(slots=True)
class _Second:
    at: int
    attempts: int = 0
    failed: int = 0
    retries: int = 0
    durations: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Summary:
    """The last five minutes of this process.

    Attributes:
        attempts: Attempts that ended, per second.
        failed: How many of them failed.
        retries: How many are followed by another.
        median: Seconds; None if there was no attempt.
        p95: Likewise.
        bars: Attempts per five seconds, oldest first.
    """

    attempts: float
    failed: int
    retries: int
    median: float | None
    p95: float | None
    bars: list[int]


class Activity:
    """Counts attempts of this process second by second.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[_Second] = deque(maxlen=WINDOW)

    def install(self) -> Callable[[], None]:
        """Count from now on; gives a function that stops it."""
        return register_metrics_hooks(
            saga_step_completed_hook=self._ended,
            saga_step_compensated_hook=self._ended,
            saga_step_failed_hook=self._failed,
            saga_step_retried_hook=self._retried,
        )

    def summary(self) -> Summary:
        """The last five minutes."""
        now = int(self._clock())
        lately = [second for second in self._seconds if second.at > now - WINDOW]
        durations = sorted(duration for second in lately for duration in second.durations)
        bars = [0] * _BARS
        for second in lately:
            bars[_BARS - 1 - (now - second.at) * _BARS // WINDOW] += second.attempts
        span = min(WINDOW, now - lately[0].at + 1) if lately else 1
        return Summary(
            attempts=sum(second.attempts for second in lately) / span,
            failed=sum(second.failed for second in lately),
            retries=sum(second.retries for second in lately),
            median=statistics.median(durations) if durations else None,
            p95=durations[int(len(durations) * 0.95)] if durations else None,
            bars=bars,
        )

    def _now(self) -> _Second:
        at = int(self._clock())
        if not self._seconds or self._seconds[-1].at != at:
            self._seconds.append(_Second(at))
        return self._seconds[-1]

    def _ended(self, _operation: str, _tenant_id: str, details: dict[str, Any]) -> None:
        second = self._now()
        second.attempts += 1
        if len(second.durations) < _MOST_DURATIONS:
            second.durations.append(details["seconds"])

    def _failed(self, operation: str, tenant_id: str, details: dict[str, Any]) -> None:
        self._ended(operation, tenant_id, details)
        self._seconds[-1].failed += 1

    def _retried(self, _operation: str, _tenant_id: str, _details: dict[str, Any]) -> None:
        self._now().retries += 1


@dataclass(frozen=True, slots=True)
class Throughput:
    """Sagas per second over the last minute, of all workers; None until there are two counts to compare."""

    started: float | None
    ended: float | None


class StoredCounts:
    """Remembers counts of sagas, and makes rates of their differences.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int, int]] = deque()

    def note(self, counts: dict[OperationStatus, int]) -> None:
        """Take a count that was made just now."""
        now = self._clock()
        if self._samples and now - self._samples[-1][0] < _SAMPLE_EVERY:
            return
        ended = sum(count for status, count in counts.items() if status.is_final)
        self._samples.append((now, sum(counts.values()), ended))
        while now - self._samples[0][0] > _RATE_OVER and len(self._samples) > 2:  # noqa: PLR2004 - a rate needs two
            self._samples.popleft()

    def throughput(self) -> Throughput:
        """The rates. What retention removes meanwhile lowers the counts; a rate is never below zero for that."""
        if len(self._samples) < 2:  # noqa: PLR2004 - a rate needs two
            return Throughput(None, None)
        (first, all_before, ended_before), (last, all_now, ended_now) = self._samples[0], self._samples[-1]
        span = last - first
        return Throughput(max(all_now - all_before, 0) / span, max(ended_now - ended_before, 0) / span)
