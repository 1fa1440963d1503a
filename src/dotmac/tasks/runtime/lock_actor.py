"""The actor of one lock in one process: everybody here who wants the lock stands in its queue.

It exists while somebody waits or holds. In the storage it is one waiter, however many wait here. When the storage
grants the lock, the actor lets its waiters hold it one after another, each under a fence of its own, without asking
again; after `MOST_HANDOVERS` of them, or `LONGEST_TURN` seconds, it gives the lock up and queues anew in one step, so
other processes have their turn. Who leaves is told so when the lock is free in the storage, or handed on here.

Whoever wants or leaves says so by a message, which never waits; so a cancelled task can always say that it left. The
one thing that is not a message is the body's end of time: its scope's deadline is the lease (`lock_holding`), so it
ends even if this actor is held up.
"""

from __future__ import annotations

import functools
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import trio

from ..actors import Inbox
from ..errors import ActorDied, EnvironmentFault
from ..storage.records import LockGrant, LockQueued, LockRequest
from .lock_holding import Tenure, Ticket
from .lock_tools import LockTools, not_free, stopped

MOST_HANDOVERS = 128
LONGEST_TURN = 0.1

PLACE = 5.0
"""Seconds that a place in the storage's queue lasts: so long a process that died can hold up those behind it."""

_HEAD_POLLS, _OTHERS_POLL = 1.0, 1.5  # seconds between two looks, should every message be lost
_SHORTEST_POLL = 0.005
_GRACE = 1.0  # seconds that a cancelled body may take to end before others here stop waiting for it


@dataclass(frozen=True, slots=True)
class Want:
    """Message: queue this ticket."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Leave:
    """Message: the ticket's holder is out of its body, or does not wait any more."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Look:
    """Message: the lock may be free, a lease may be lost: look."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Message: the runtime stops. Nobody gets the lock any more, and who holds it is cancelled."""


Message = Want | Leave | Look | Stop
_LOOK = Look()


class LockActor:
    """One lock.

    Args:
        name: The lock's.
        tools: Shared with other actors.
        retire: Called in the moment in which no message will be read any more.

    Attributes:
        inbox: Takes `Want`, `Leave`, `Look` and `Stop`.
        holder: Who holds the lock here.
    """

    def __init__(self, name: str, tools: LockTools, retire: Callable[[LockActor], None]) -> None:
        self.name = name
        self.inbox: Inbox[Message] = Inbox(float("inf"), name=f"lock {name}")
        self.holder: Ticket | None = None
        self._tools = tools
        self._retire = retire
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()
        self._stopping = False
        self._queues = False
        self._topic = tools.wakeups.topic(name)

    def tell(self, message: Message) -> None:
        """Deliver a message; one to an actor that has ended has nothing left to do."""
        if not self.inbox.closed:
            self.inbox.put_nowait(message)

    async def run(self) -> None:
        """Serve until nobody wants the lock any more."""
        try:
            tenure: Tenure | None = None
            while tenure is not None or self._somebody_waits():
                tenure = await self._obtain(tenure)
                if tenure is not None:
                    tenure = await self._reign(tenure)
        except Exception as error:
            self._end(functools.partial(_died, self.name, error))
            raise
        finally:
            self._end(stopped)

    # --- messages -------------------------------------------------------------------------------------------

    def _read_inbox(self) -> None:
        while len(self.inbox):
            self._read(self.inbox.get_nowait())

    def _read(self, message: Message) -> None:
        match message:
            case Want(ticket):
                self._waiting[ticket] = None
                if self._stopping:
                    self._refuse(ticket, stopped())
                elif ticket.once and self.holder is not None:
                    self._refuse(ticket, not_free(self.name))
            case Leave(ticket):
                self._waiting.pop(ticket, None)
                if ticket is self.holder:
                    self.holder = None
                if ticket.lost:
                    ticket.left.set()  # it has nothing that it could hand on
            case Stop():
                self._stopping = True
                self._refuse_all(stopped)
                if self.holder is not None and self.holder.tenure is not None:
                    self.holder.tenure.lose()

    def _somebody_waits(self) -> bool:
        self._read_inbox()
        return bool(self._waiting)

    def _refuse(self, ticket: Ticket, failure: Exception) -> None:
        self._waiting.pop(ticket, None)
        ticket.fail(failure)

    def _refuse_all(self, failure: Callable[[], Exception]) -> None:
        for ticket in tuple(self._waiting):
            self._refuse(ticket, failure())

    def _end(self, failure: Callable[[], Exception]) -> None:
        """Nothing will be read any more: nobody may go on waiting, or go on as a holder without a keeper."""
        if self.inbox.closed:
            return
        self._read_inbox()
        self._retire(self)
        self.inbox.close()
        self._refuse_all(failure)
        if self.holder is not None and self.holder.tenure is not None:
            self.holder.tenure.lose()
            self.holder.left.set()

    # --- getting it -----------------------------------------------------------------------------------------

    async def _obtain(self, former: Tenure | None) -> Tenure | None:
        """Ask the storage until it grants the lock; None if nobody wants it any more, or nobody can have it.

        Args:
            former: What the process holds of it until now; given up, whatever else happens.
        """
        token, asked = secrets.token_hex(12), False
        tenure: Tenure | None = None
        self._tools.wakeups.add(self._topic, self, self._look)
        try:
            while tenure is None and self._somebody_waits():
                asked = True
                tenure = await self._ask(token, former)
                former = None
        except EnvironmentFault as error:
            # Nobody knows what of this was done. Everybody here is told, so that nobody waits for nothing.
            for ticket in tuple(self._waiting):
                self._refuse(ticket, _copy(error))
        finally:
            self._tools.wakeups.remove(self._topic, self)
            if former is not None:
                await self._tools.give_up(self.name, former.token)
                _tell_left(former)
            if tenure is None and asked:
                await self._tools.give_up(self.name, token)
        return tenure

    async def _ask(self, token: str, former: Tenure | None) -> Tenure | None:
        """One request, and the pause after it if it was in vain."""
        ticket = next(iter(self._waiting))
        # The first try takes no place in the storage's queue unless the wake-up for it would be heard.
        self._queues = self._queues or self._tools.wakeups.is_listening(self._topic)
        queue = self._queues and not all(waiting.once for waiting in self._waiting)
        request = LockRequest(
            name=self.name,
            token=token,
            lease=ticket.ttl,
            owner=self._tools.owner,
            wait=PLACE if queue else None,
            topic=self._topic,
            fences=MOST_HANDOVERS,
            instead_of=None if former is None else former.token,
        )
        asked_at = trio.current_time()
        answer = await self._tools.storage.request_lock(request)
        if former is not None:
            _tell_left(former)
        if isinstance(answer, LockGrant):
            return Tenure(self.name, token, answer, fences=MOST_HANDOVERS, lease=ticket.ttl, asked_at=asked_at)
        for waiting in tuple(self._waiting):
            if waiting.once:
                self._refuse(waiting, not_free(self.name))
        if queue:
            await self._doze(answer)
        elif self._waiting:
            await self._tools.wakeups.listen(self._topic)
            self._queues = True
        return None

    async def _doze(self, answer: LockQueued) -> None:
        """Wait for a message; at most until the lock may be free by itself, or a message may have been lost."""
        beat = min(_HEAD_POLLS + answer.ahead / 10, _OTHERS_POLL)
        with trio.move_on_after(max(min(answer.retry_after, beat), _SHORTEST_POLL)):
            while self._waiting:
                message = await self.inbox.get()
                self._read(message)
                if message is _LOOK:
                    return
                if isinstance(message, Want) and message.ticket.once and message.ticket in self._waiting:
                    # It was not free a moment ago, and who frees it tells us.
                    self._refuse(message.ticket, not_free(self.name))

    def _look(self) -> None:
        self.tell(_LOOK)

    # --- having it ------------------------------------------------------------------------------------------

    async def _reign(self, tenure: Tenure) -> Tenure | None:
        """Let waiters hold it one after another. Gives the tenure back if it has still to be given up."""
        tenure.on_lost = self._look
        leaver: Ticket | None = None
        self._tools.renewals.add(tenure)
        try:
            while self._somebody_waits() and not tenure.is_over:
                ticket = next(iter(self._waiting))
                if leaver is not None:
                    if not tenure.passes_to(ticket, LONGEST_TURN):
                        break
                    leaver.left.set()
                del self._waiting[ticket]
                self.holder = ticket
                tenure.serve(ticket)
                leaver = ticket
                if not await self._held(tenure, ticket):
                    return None
        finally:
            self._tools.renewals.remove(tenure)
        return tenure

    async def _held(self, tenure: Tenure, ticket: Ticket) -> bool:
        """Wait until the holder has left, or does not although its lease is lost; whether it has left."""
        while self.holder is ticket and not tenure.lost:
            self._read(await self.inbox.get())
        with trio.move_on_after(_GRACE):
            while self.holder is ticket:
                self._read(await self.inbox.get())
        if self.holder is not ticket:
            return True
        # Freed now, the lock might have two bodies; left alone, its lease is over in a moment. Others here queue anew.
        self.holder = None
        ticket.left.set()
        return False


def _tell_left(former: Tenure) -> None:
    if former.holder is not None:
        former.holder.left.set()


def _died(name: str, cause: Exception) -> ActorDied:
    died = ActorDied(f"the actor of the lock {name!r} failed")
    died.__cause__ = cause
    return died


def _copy(error: EnvironmentFault) -> EnvironmentFault:
    """One for each task: tracebacks are not shared."""
    copy = type(error)(*error.args)
    copy.__cause__ = error
    return copy
