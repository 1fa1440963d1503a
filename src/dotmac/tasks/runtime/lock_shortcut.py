"""The short way for a lock that nobody else in this process wants: one request to get it, one to give it up.

A task that finds no actor for its lock asks the storage itself; that saves the actor's task and four switches, which
is as much as the requests themselves take. Where the lock is not free, or a second task of this process comes, the
actor takes over: it queues in the storage behind whoever holds the lock this way, as behind another process.
"""

from __future__ import annotations

import secrets

import trio

from ..storage.records import LockGrant, LockRequest
from .lock_holding import Tenure, Ticket
from .lock_tools import LockTools, not_free, stopped


class Shortcuts:
    """Tickets that are held, or asked for, without an actor."""

    def __init__(self, tools: LockTools) -> None:
        self._tools = tools
        self._tickets: dict[str, Ticket] = {}
        self._closing = False
        self._idle: trio.Event | None = None

    def ticket(self, name: str) -> Ticket | None:
        """Who has the lock, or asks for it, this way."""
        return self._tickets.get(name)

    def holds(self, ticket: Ticket) -> bool:
        """Whether this ticket is held this way."""
        return self._tickets.get(ticket.name) is ticket

    async def take(self, ticket: Ticket) -> bool:
        """Ask once, without a place in the queue. False: it is not free, and the ticket has still to be queued.

        Raises:
            NotStarted: The runtime stops.
            EnvironmentFault: The storage cannot tell.

        When it raises or is cancelled, nothing is held.
        """
        name, token = ticket.name, secrets.token_hex(12)
        self._tickets[name] = ticket
        asked_at = trio.current_time()
        tenure: Tenure | None = None
        refused = False
        try:
            answer = await self._tools.storage.request_lock(LockRequest(name, token, ticket.ttl, self._tools.owner))
            if isinstance(answer, LockGrant):
                tenure = Tenure(name, token, answer, fences=1, lease=ticket.ttl, asked_at=asked_at)
                if self._closing:
                    raise stopped()
            refused = tenure is None
        finally:
            if tenure is None or tenure.is_over or self._closing:
                if not refused:
                    # It may be ours: the answer was lost or came too late, or we were cancelled before it came.
                    await self._tools.give_up(name, token)
                self._exit(ticket)
        if tenure is None or not self.holds(ticket):
            if ticket.once:
                ticket.fail(not_free(name))
            return ticket.once
        tenure.serve(ticket)
        self._tools.renewals.add(tenure)
        return True

    async def leave(self, ticket: Ticket) -> None:
        """Give it up in the storage."""
        tenure = ticket.tenure
        assert tenure is not None  # noqa: S101 - what is held has one
        self._tools.renewals.remove(tenure)
        await self._tools.give_up(ticket.name, tenure.token)
        self._exit(ticket)
        ticket.left.set()

    def open(self) -> None:
        """Take tickets from now on."""
        self._closing = False

    def close(self) -> None:
        """Take no more, and cancel the bodies of those that are held."""
        self._closing = True
        for ticket in self._tickets.values():
            if ticket.tenure is not None and not ticket.over:  # whose body has ended in time has lost nothing
                ticket.tenure.lose()

    async def until_idle(self) -> None:
        """Wait until there are none, after `close`."""
        if self._tickets:
            self._idle = trio.Event()
            await self._idle.wait()

    def _exit(self, ticket: Ticket) -> None:
        del self._tickets[ticket.name]
        if self._idle is not None and not self._tickets:
            self._idle.set()
