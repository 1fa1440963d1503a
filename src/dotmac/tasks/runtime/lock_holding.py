"""A wish for a lock, the grant that fulfils it, and the body that runs under it.

One grant of the storage (`Tenure`) serves holders of this process one after another: each is a `Ticket`, each gets a
fence of its own out of the values that the grant reserved. What a body may rely on is its *deadline*: the time just
before the last successful request, plus the lease, minus a margin. It only ever moves on while it has not passed;
once it has, or the storage said that the lock is gone, the tenure is lost for good, and with it the body.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from ..storage.records import LockGrant
from .renewals import certain_until, due_at


class Body:
    """The scope of what runs under one lock or several: it ends with the first of them.

    Attributes:
        scope: There from the first grant on.
        tickets: Those that were granted.
    """

    __slots__ = ("scope", "tickets")

    scope: trio.CancelScope

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []

    def add(self, ticket: Ticket) -> None:
        """One more was granted."""
        self.tickets.append(ticket)
        if len(self.tickets) == 1:
            self.scope = trio.CancelScope(deadline=ticket.deadline)
        else:
            self.moved()

    def moved(self) -> None:
        """A deadline moved."""
        self.scope.deadline = min(ticket.deadline for ticket in self.tickets)


@dataclass(slots=True, eq=False)
class Ticket:
    """One wish for one lock, and the holding that it becomes.

    Attributes:
        ttl: Seconds of the lease.
        once: Whether to give up at once where the lock is not free.
        body: What runs under it.
        caller: Who asked, so that asking for the same lock again can be told from waiting for others.
        settled: Set when it is granted or has failed.
        left: Set when it is given up in the storage, or handed on.
        failure: Why it cannot be granted.
        tenure: The grant, from the moment it is held.
        fence: Its own value.
        lost: The lease ended before the body did. Final once it is true.
        over: The body has been left, in good time or not.
    """

    name: str
    ttl: float
    once: bool
    body: Body
    caller: object
    settled: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    failure: Exception | None = None
    tenure: Tenure | None = None
    fence: int = 0
    lost: bool = False
    over: bool = False

    @property
    def deadline(self) -> float:
        """Until when the lock is ours for certain, in seconds of trio's clock."""
        return math.inf if self.tenure is None else self.tenure.deadline

    def grant(self, tenure: Tenure, fence: int) -> None:
        """It is held from now on."""
        self.tenure, self.fence = tenure, fence
        self.body.add(self)
        self.settled.set()

    def fail(self, failure: Exception) -> None:
        """It will not be granted."""
        self.failure = failure
        self.settled.set()
        self.left.set()

    def lose(self) -> None:
        """Cancel the body."""
        self.lost = True
        self.body.scope.cancel()


class Tenure:
    """One grant of the storage: whoever holds it, until it is given up or lost.

    Args:
        name: The lock.
        token: Of the grant.
        grant: The storage's answer.
        fences: How many values it reserved.
        lease: Seconds that were asked for.
        asked_at: When, in seconds of trio's clock.

    Attributes:
        since: When it was granted, in seconds of trio's clock.
        lease: What the next renewal asks for.
        deadline: Until when it is ours for certain, in seconds of trio's clock.
        renew_at: When it should be renewed.
        lost: The lease could not be kept.
        holder: Who holds it at the moment.
        on_lost: Called when it is lost.
    """

    __slots__ = ("_last_fence", "_next_fence", "deadline", "holder", "lease", "lost", "name", "on_lost", "renew_at",
                 "since", "token")  # fmt: skip

    def __init__(self, name: str, token: str, grant: LockGrant, *, fences: int, lease: float, asked_at: float) -> None:
        self.name = name
        self.token = token
        self.lease = lease
        self.since = trio.current_time()
        self.lost = False
        self.holder: Ticket | None = None
        self.on_lost: Callable[[], None] = lambda: None
        self._next_fence = grant.fence
        self._last_fence = grant.fence + fences - 1
        self.deadline = certain_until(asked_at, lease)
        self.renew_at = due_at(asked_at, lease)

    @property
    def is_over(self) -> bool:
        """Whether it is lost, or its time has passed without anybody having noticed."""
        return self.lost or trio.current_time() >= self.deadline

    def passes_to(self, ticket: Ticket, longest: float) -> bool:
        """Whether it may go on to this holder without asking the storage.

        Args:
            ticket: The holder.
            longest: Seconds from the grant after which other processes have their turn.
        """
        now = trio.current_time()
        if self.lost or self._next_fence > self._last_fence:
            return False
        # A body that begins with too little time would be cancelled by the first hiccup. With too much of it, others
        # would wait longer for a process that died than whoever holds the lock has asked for.
        return now - self.since < longest and ticket.ttl / 2 <= self.deadline - now <= ticket.ttl

    def serve(self, ticket: Ticket) -> None:
        """Let this ticket hold it, under the next fence."""
        self.holder = ticket
        self.lease = ticket.ttl
        ticket.grant(self, self._next_fence)
        self._next_fence += 1

    def extended(self, lease: float, asked_at: float) -> None:
        """The storage prolonged the lease, asked at this time. Too late is lost: a body is never brought back."""
        if self.is_over:
            self.lose()
            return
        self.deadline = max(self.deadline, certain_until(asked_at, lease))
        self.renew_at = due_at(asked_at, lease)
        if self.holder is not None:
            self.holder.body.moved()

    def lose(self) -> None:
        """The lease cannot be kept, or is gone: cancel the body. Again does nothing."""
        if self.lost:
            return
        self.lost = True
        if self.holder is not None:
            self.holder.lose()
        self.on_lost()
