"""What the machine wants done next. Verbs; the driver carries them out, the machine never does."""

from __future__ import annotations

import msgspec

from .events import Event


class Record(msgspec.Struct, frozen=True, gc=False):
    """Add this fact to the journal, apply it, and ask again."""

    event: Event


class Invoke(msgspec.Struct, frozen=True, gc=False):
    """Run the handler of this attempt, after everything recorded so far is durable.

    Attributes:
        deadline_at: When the attempt is cut off because the saga's time is over; None: never for that reason.
    """

    step: int
    attempt: int
    undo: bool
    deadline_at: float | None


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Do nothing before this time, after everything recorded so far is durable."""

    until: float


class Rest(msgspec.Struct, frozen=True, gc=False):
    """Nothing is left to do: the saga is in a final status."""


Command = Record | Invoke | Wait | Rest
