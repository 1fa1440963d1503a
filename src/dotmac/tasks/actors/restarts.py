"""When to restart a child that ended, and when to stop trying: the arithmetic of a supervisor, pure.

A supervisor that restarts without limit turns a broken child into a busy loop; one that restarts at once turns a
short outage into a storm. So there are two rules here: an *intensity* (so many restarts within so many seconds,
then give up and let the parent decide) and a *back-off* (each restart of the same child waits longer, up to a cap).
Time and jitter come in as arguments, so that both rules can be tested exhaustively.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dotmac.tasks.errors import InvalidInput


class Verdict(Enum):
    """What the restart intensity says about one more restart."""

    RESTART = "restart"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class RestartIntensity:
    """At most `max_restarts` restarts within any `within_seconds` seconds (the rule of Erlang/OTP supervisors).

    Raises:
        InvalidInput: `max_restarts` is negative or `within_seconds` is not positive.
    """

    max_restarts: int = 5
    within_seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.max_restarts < 0:
            raise InvalidInput("max_restarts", "must be 0 or more")
        if not self.within_seconds > 0:
            raise InvalidInput("within_seconds", "must be more than 0 seconds")

    def window(self) -> RestartWindow:
        """Return the window in which nothing has been restarted yet."""
        return RestartWindow(self)


@dataclass(frozen=True, slots=True)
class RestartWindow:
    """The restarts that still count against an intensity: at most ``max_restarts + 1`` times, oldest first."""

    intensity: RestartIntensity
    times: tuple[float, ...] = ()

    def record(self, now: float) -> tuple[RestartWindow, Verdict]:
        """Count one restart.

        Args:
            now: Seconds on a monotonic clock, not before the last recorded time.

        Returns:
            The window with this restart in it, and whether the restart may be made.
        """
        since = now - self.intensity.within_seconds
        times = (*(time for time in self.times if time > since), now)[-(self.intensity.max_restarts + 1) :]
        verdict = Verdict.GIVE_UP if len(times) > self.intensity.max_restarts else Verdict.RESTART
        return RestartWindow(self.intensity, times), verdict


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a restart: exponential, capped, and spread over the upper half of the delay.

    Only the upper half is spread, so that a restart never comes at once, and children that failed together
    (their server went away) still do not come back together.

    Attributes:
        initial_seconds: The longest wait before the first restart.
        factor: By how much the wait grows with each failure in a row.
        cap_seconds: The longest wait there is. A child that lived at least this long starts anew at the initial wait.

    Raises:
        InvalidInput: A value is negative, the factor is below 1, or the cap is below the initial wait.
    """

    initial_seconds: float = 0.1
    factor: float = 2.0
    cap_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not self.initial_seconds >= 0:
            raise InvalidInput("initial_seconds", "must be 0 seconds or more")
        if not self.factor >= 1:
            raise InvalidInput("factor", "must be 1 or more")
        if not self.cap_seconds >= self.initial_seconds:
            raise InvalidInput("cap_seconds", "must not be below initial_seconds")

    def failures_in_a_row(self, before: int, lived_seconds: float) -> int:
        """Return how many failures in a row there are, now that a child ended which had `before` and lived so long."""
        return 1 if lived_seconds >= self.cap_seconds else before + 1

    def delay(self, failures: int, jitter: float) -> float:
        """Return the wait before the next restart, in seconds.

        Args:
            failures: Failures in a row, 1 for the first.
            jitter: 0 for the shortest wait (half of the longest), 1 for the longest.
        """
        try:
            longest = min(self.cap_seconds, self.initial_seconds * float(self.factor) ** (failures - 1))
        except OverflowError:  # only an enormous power overflows, and the cap is what it would have been cut to
            longest = self.cap_seconds if self.initial_seconds else 0.0
        return longest * (0.5 + 0.5 * jitter)
