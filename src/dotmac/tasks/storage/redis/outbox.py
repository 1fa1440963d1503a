"""Calls that are not sent yet: those that may go next, and those for which there is no room.

Dicts serve as ordered sets: giving up takes a call out of the middle at no cost, so a link that is down for long
holds only calls that somebody waits for.
"""

from __future__ import annotations

from collections.abc import Iterable

from .calls import Call


class Outbox:
    """The queue before a connection.

    Attributes:
        ready: Calls that go with the next write, in their order.
        crowd: Calls that wait until fewer than `window` commands are under way.
        window: How many calls may be ready or sent and unanswered together.
    """

    __slots__ = ("crowd", "ready", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.ready: dict[Call, None] = {}
        self.crowd: dict[Call, None] = {}

    def __len__(self) -> int:
        return len(self.ready) + len(self.crowd)

    def put(self, call: Call, unanswered: int) -> bool:
        """Queues a call; returns whether it may go with the next write."""
        if len(self.ready) + unanswered < self.window:
            self.ready[call] = None
            return True
        self.crowd[call] = None
        return False

    def drop(self, call: Call) -> None:
        """Takes a call out, if it is here."""
        if self.ready.pop(call, self) is self:
            self.crowd.pop(call, None)

    def admit(self, unanswered: int) -> None:
        """Lets in as many of the crowd as there is room for now, those that wait longest first."""
        while self.crowd and len(self.ready) + unanswered < self.window:
            call = next(iter(self.crowd))
            del self.crowd[call]
            self.ready[call] = None

    def take(self) -> dict[Call, None]:
        """Empties what is ready and returns it."""
        calls, self.ready = self.ready, {}
        return calls

    def put_first(self, calls: Iterable[Call]) -> None:
        """Queues calls before all others, in their order: they were sent before, and are sent again."""
        self.ready = dict.fromkeys(calls) | self.ready

    def drain(self) -> list[Call]:
        """Empties everything and returns it in its order."""
        calls = [*self.ready, *self.crowd]
        self.ready.clear()
        self.crowd.clear()
        return calls
