"""What a worker tells the actors of its sagas."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cancel:
    """Message: turn back, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Message: begin nothing new; give the saga up when the running attempt has ended."""


@dataclass(frozen=True, slots=True)
class Hasten:
    """Message: as `Drain`, and cut the running attempt off."""


Message = Cancel | Drain | Hasten
