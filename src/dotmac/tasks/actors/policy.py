"""How a supervisor answers the failure of a child: whom it restarts, how often, and after what wait."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from dotmac.tasks.actors.restarts import Backoff, RestartIntensity

T = TypeVar("T")


class Strategy(Enum):
    """Which children are restarted when one of them has to be. Names and meanings are Erlang/OTP's."""

    ONE_FOR_ONE = "one for one"  # that one: the children do not depend on each other
    ONE_FOR_ALL = "one for all"  # all of them: they share state that is gone
    REST_FOR_ONE = "rest for one"  # that one and those started after it: later ones use earlier ones

    def group(self, children: Sequence[T], ended: T) -> Sequence[T]:
        """Return, out of all children in order of start, those who share the fate of the one that ended."""
        if self is Strategy.ONE_FOR_ONE:
            return [ended]
        if self is Strategy.ONE_FOR_ALL:
            return children
        return children[children.index(ended) :]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """The restart rules of one supervisor.

    Attributes:
        strategy: Which children are restarted together.
        intensity: How many restarts within how many seconds, all children counted together, before it gives up.
            A restart of a whole group counts once.
        backoff: The wait before a restart.
        jitter: Returns a number from 0 to 1 that spreads the waits.
    """

    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: RestartIntensity = field(default_factory=RestartIntensity)
    backoff: Backoff = field(default_factory=Backoff)
    jitter: Callable[[], float] = random.random
