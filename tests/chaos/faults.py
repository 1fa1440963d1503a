"""What goes wrong and when: a schedule drawn from a seed, so that a failing one can be run again."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from random import Random


class Trouble(enum.Enum):
    """What can go wrong. The second value is how often, relative to the others."""

    KILL_WORKER = "SIGKILL a worker, start another", 5
    FREEZE_WORKER = "SIGSTOP a worker beyond its lease, then SIGCONT", 3
    DRAIN_WORKER = "SIGTERM a worker, start another", 2
    KILL_SERVER = "SIGKILL the server, start it again", 2
    FREEZE_SERVER = "SIGSTOP the server, then SIGCONT", 1
    KILL_CONNECTIONS = "CLIENT KILL TYPE normal", 3
    KILL_SUBSCRIPTIONS = "CLIENT KILL TYPE pubsub", 1
    FLUSH_SCRIPTS = "SCRIPT FLUSH", 1
    LOSE_REPLIES = "lose, cut, drop and delay for a while at the proxy", 4
    STALL = "one connection that says nothing any more", 1
    CANCEL = "cancel some saga", 3

    def __init__(self, about: str, weight: int) -> None:
        self.about = about
        self.weight = weight


@dataclass(frozen=True)
class Planned:
    """One trouble.

    Attributes:
        at: Seconds since the beginning.
        target: Which worker, or which saga (modulo how many there are).
        seconds: How long it lasts.
    """

    at: float
    trouble: Trouble
    target: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:6.2f} s  {self.trouble.name:18} target {self.target:4}  for {self.seconds:.2f} s"


def draw_schedule(seed: int, seconds: float, lease: float) -> list[Planned]:
    """Troubles for this many seconds, the same for the same arguments."""
    random = Random(seed)
    kinds = list(Trouble)
    schedule, at = [], 1.0
    while at < seconds:
        trouble = random.choices(kinds, [kind.weight for kind in kinds])[0]
        lasts = random.uniform(1.1, 1.8) * lease if trouble is Trouble.FREEZE_WORKER else random.uniform(0.0, 1.0)
        if trouble is Trouble.KILL_SERVER and random.random() < 0.3:
            lasts += lease  # away for so long that every worker loses its lease
        schedule.append(Planned(round(at, 2), trouble, random.randrange(1000), round(lasts, 2)))
        at += random.uniform(0.1, 1.2)
    return schedule
