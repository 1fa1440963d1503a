"""What a handler needs before it is called, and the handlers that wait for it. See `permits`."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

P = TypeVar("P")
_SPARE = 64  # entries of handlers that wait no more, before the queue is freed of them


class Limit:
    """A number of handlers that may run at once.

    Args:
        name: The setting or the operation.
        capacity: The number; infinite: no bound.

    Attributes:
        running: Handlers that hold it.
        reported: Whether the log says that it is full; False again when it has room.
        quiet_until: No message before this time (trio's clock).
    """

    __slots__ = ("capacity", "name", "quiet_until", "reported", "running")

    def __init__(self, name: str, capacity: float) -> None:
        self.name = name
        self.capacity = capacity
        self.running = 0
        self.reported = False
        self.quiet_until = -math.inf


@dataclass(slots=True, eq=False)
class Demand:
    """What the handler of one operation needs.

    Attributes:
        operation: The operation.
        thread: Whether the handler is a plain function.
        limit: Of the operation; None: it has none.
        limits: All limits that apply; None before its first permit.
        running: Permits that count at the moment.
    """

    operation: str
    thread: bool
    limit: Limit | None = None
    limits: tuple[Limit, ...] | None = None
    running: int = 0

    def succeed(self, former: Demand) -> None:
        """The operation's handler was registered again: calls of the former one count on."""
        if self.limit is not None and former.limit is not None:
            former.limit.capacity = self.limit.capacity
            self.limit = former.limit


class Waiter(Generic[P]):
    """A handler that waits for its permit; gone: it waits no more."""

    __slots__ = ("event", "gone", "permit", "subject")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.event = trio.Event()
        self.permit: P | None = None
        self.gone = False


class HandlerQueue(Generic[P]):
    """Handlers with one demand that wait, in their order."""

    __slots__ = ("_heap", "demand", "limits", "waiting")

    def __init__(self, demand: Demand, limits: tuple[Limit, ...]) -> None:
        self._heap: list[tuple[int, int, Waiter[P]]] = []
        self.demand = demand
        self.limits = limits
        self.waiting = 0

    def add(self, priority: int, number: int, waiter: Waiter[P]) -> None:
        """Queue a handler; `number` rises with each arrival."""
        heapq.heappush(self._heap, (-priority, number, waiter))
        self.waiting += 1

    def leave(self, waiter: Waiter[P]) -> None:
        """A handler waits no more. Again does nothing."""
        if not waiter.gone:
            waiter.gone = True
            self.waiting -= 1
            if len(self._heap) > 2 * self.waiting + _SPARE:
                self._heap = [entry for entry in self._heap if not entry[2].gone]
                heapq.heapify(self._heap)

    def place_of_first(self) -> tuple[int, int]:
        """Where its first waiter stands among all; there must be one."""
        while self._heap[0][2].gone:
            heapq.heappop(self._heap)
        return self._heap[0][:2]

    def first(self) -> Waiter[P]:
        """Its first waiter, after `place_of_first`."""
        return self._heap[0][2]

    def all(self) -> list[Waiter[P]]:
        """All that wait."""
        return [waiter for _, _, waiter in self._heap if not waiter.gone]

    @property
    def has_room(self) -> bool:
        """Whether no limit is full."""
        return all(limit.running < limit.capacity for limit in self.limits)
