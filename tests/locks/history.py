"""The verdict on a history of critical sections: who was inside when, and under which fence.

Each line is one visit. Times come from a clock that all writers share, taken after entering and before leaving; so two
visits that overlap by them did overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Self


@dataclass(frozen=True, slots=True)
class Visit:
    """One holder's time inside."""

    fence: int
    entered: int
    left: int
    who: str

    def line(self) -> str:
        return f"{self.fence} {self.entered} {self.left} {self.who}\n"

    @classmethod
    def parse(cls, line: str) -> Self:
        fence, entered, left, who = line.split()
        return cls(int(fence), int(entered), int(left), who)


def check(visits: Iterable[Visit]) -> None:
    """Raise AssertionError unless nobody was inside with anybody else, and each later holder had a higher fence."""
    in_time = sorted(visits, key=lambda visit: visit.entered)
    for before, after in pairwise(in_time):
        assert before.left <= after.entered, f"two were inside: {before} and {after}"
        assert before.fence < after.fence, f"the fence did not rise: {before} then {after}"
