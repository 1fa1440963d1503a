"""When a failed attempt is tried again: exponential back-off, full jitter, a cap, and errors that end it.

Pure: the random number comes in as an argument. Full jitter (delay drawn evenly between zero and the
exponential bound) spreads a herd best of the usual schemes; source: M. Brooker, "Exponential Backoff And
Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .bounds import MAX_SECONDS

_MAX_RETRIES = 1_000_000
_MAX_MULTIPLIER = 1000
_MAX_EXPONENT = 63  # 2.0**63 s is far beyond any cap; the largest power, 1000.0**63, still fits a float


class RetryPolicy(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How often, how far apart, and not for which errors.

    Attributes:
        max_retries: Attempts after the first one; 0 means a single attempt.
        initial_delay: Upper bound of the first delay, in seconds.
        multiplier: Growth of the bound per retry, at least 1.
        max_delay: Upper bound of any delay, in seconds.
        jitter: Draw each delay evenly from zero to its bound; without it, the bound is the delay.
        non_retryable: Names of exception classes (without module) that end the attempts at once.
    """

    max_retries: int = 3
    initial_delay: float = 0.1
    multiplier: float = 2.0
    max_delay: float = 60.0
    jitter: bool = True
    non_retryable: tuple[str, ...] = ()

    def problem(self) -> tuple[str, str] | None:
        """The first field that makes no sense and why, or None.

        Types are checked too: a policy that a caller built by hand has passed no codec.
        """
        if not _within(self.max_retries, 0, _MAX_RETRIES, int):
            return "max_retries", f"must be 0 or more, an integer up to {_MAX_RETRIES}, not {self.max_retries!r:.80}"
        if not _within(self.max_delay, 0, MAX_SECONDS):
            return "max_delay", f"must be a number of seconds from 0 to {MAX_SECONDS:.0e}, not {self.max_delay!r:.80}"
        if not _within(self.initial_delay, 0, self.max_delay):
            wanted = f"between 0 and max_delay ({self.max_delay})"
            return "initial_delay", f"must lie {wanted}, not {self.initial_delay!r:.80}"
        if not _within(self.multiplier, 1, _MAX_MULTIPLIER):
            return "multiplier", f"must be 1 or more, up to {_MAX_MULTIPLIER}, not {self.multiplier!r:.80}"
        if not _within(self.jitter, False, True, bool):
            return "jitter", f"must be true or false, not {self.jitter!r:.80}"
        names: Any = self.non_retryable
        if type(names) is not tuple or not all(isinstance(name, str) and name.isidentifier() for name in names):
            return "non_retryable", f"must be a tuple of class names without module, not {names!r:.80}"
        return None

    def allows(self, attempts: int) -> bool:
        """Whether another attempt may follow `attempts` attempts already made."""
        return attempts <= self.max_retries

    def delay(self, attempts: int, chance: float) -> float:
        """Seconds to wait after `attempts` failed attempts; `chance` is a random number in [0, 1)."""
        exponent = min(max(attempts - 1, 0), _MAX_EXPONENT)
        bound = min(self.max_delay, self.initial_delay * self.multiplier**exponent)
        return bound * chance if self.jitter else bound


def _within(value: Any, low: float, high: float, *types: type) -> bool:
    """Whether it is a number of these types (int and float if none is named) in the range; NaN is not."""
    return type(value) in (types or (int, float)) and low <= value <= high


# An undo that is given up leaves a half-done saga for a human, so it is tried longer than a forward step.
COMPENSATION_RETRY = RetryPolicy(max_retries=10, initial_delay=0.2, max_delay=300.0)
