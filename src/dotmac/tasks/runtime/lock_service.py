"""Locks of one runtime: finds or starts the actor of a lock, and keeps what all of them share.

A child of the runtime's supervisor and a supervisor itself: of the renewals, of the wake-ups, and of one actor for
each lock that somebody here wants at the moment.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

import trio

from ..actors import ChildSpec, Supervisor
from ..bridge.identity import current_caller
from ..errors import ActorDied, LockLost, LockNotAcquired, LockReentered, NotStarted, UsageError
from ..listings import LockStanding
from ..metrics import emit
from ..models import LockInfo
from ..storage.protocol import StorageProtocol
from ..storage.records import LockGrant, LockRequest
from .inside_handlers import waiting_for_others
from .lock_actor import Leave, LockActor, Stop, Want
from .lock_holding import Body, Ticket
from .lock_renewals import LockRenewals
from .lock_shortcut import Shortcuts
from .lock_tools import SIGN_OFF, LockTools, stopped
from .lock_views import lock_view, standing_view
from .lock_wakeups import Wakeups
from .losses import Losses
from .wait_graph import waiting_for
from .whereabouts import process_name

_MANY = 100  # locks without a body of which some may be over and still remembered


class LockService:
    """The locks that this process holds or waits for.

    Args:
        storage: Where the locks are.

    Attributes:
        supervisor: Runs it.
        renewals: Keeps what is held.
    """

    def __init__(self, storage: StorageProtocol, losses: Losses) -> None:
        self._storage = storage
        self.renewals = LockRenewals(storage, losses)
        wakeups = Wakeups(storage)
        self._tools = LockTools(storage, self.renewals, wakeups, process_name())
        self._shortcuts = Shortcuts(self._tools)
        self._actors: dict[str, LockActor] = {}
        self._taken: dict[str, tuple[str, float]] = {}
        self._most_taken = _MANY
        self.supervisor = Supervisor(
            "locks",
            [
                ChildSpec("renewals", self.renewals.run, shutdown_seconds=0),
                ChildSpec("wake-ups", wakeups.run, shutdown_seconds=0),
                ChildSpec("farewell", self._see_off, shutdown_seconds=SIGN_OFF + 1.0),
            ],
        )

    # --- waiting and holding --------------------------------------------------------------------------------

    async def acquire(self, name: str, ttl: float, wait: float | None, body: Body, tenant_id: str = "") -> Ticket:
        """Wait for a lock and hold it until `leave`. When it raises or is cancelled, nothing is held or queued.

        Args:
            name: The lock's.
            ttl: Seconds of its lease, which is renewed until `leave`.
            wait: Seconds to wait; 0: take it only if it is free; None: as long as it takes.
            body: What is cancelled if the lease is lost.
            tenant_id: For metrics.

        Raises:
            LockNotAcquired: It was not granted in this time.
            LockReentered: This task holds it already.
            WouldDeadlock: Its holder waits for this task.
            NotStarted: The runtime stops.
            EnvironmentFault: The storage cannot tell.
        """
        began = trio.current_time()
        try:
            self._check_entry(name)
            ticket = Ticket(name, ttl, wait == 0, body, current_caller())
            if wait:
                with trio.move_on_after(wait):
                    await self._obtain(ticket, bounded=True)
            else:
                await self._obtain(ticket, bounded=wait == 0)
            if ticket.over or not ticket.settled.is_set():  # granted in the very moment in which the wait was over
                raise LockNotAcquired(f"the lock {name!r} was not granted within {wait:g} s")
            if ticket.failure is not None:
                raise ticket.failure
        except Exception as error:
            emit("lock_failed", name, tenant_id, error=repr(error))
            raise
        emit("lock_acquired", name, tenant_id, seconds=trio.current_time() - began, fence=ticket.fence)
        return ticket

    async def leave(self, tickets: list[Ticket], tenant_id: str = "") -> list[LockLost]:
        """Give locks up, or hand them on: true in the storage when this returns, or on its way if that takes long.

        Returns:
            One error for each that had been lost.
        """
        for ticket in tickets:
            ticket.over = True
            if ticket.tenure is not None and ticket.tenure.is_over:
                # Nobody may have noticed yet: a body without checkpoints, a process that was stopped meanwhile.
                ticket.tenure.lose()
            actor = self._actors.get(ticket.name)
            if self._shortcuts.holds(ticket):
                await self._leave_shortcut(ticket)
            elif actor is not None:
                actor.tell(Leave(ticket))
            else:
                ticket.left.set()  # the runtime ended before us
        leaving = [ticket for ticket in tickets if not ticket.left.is_set()]
        if leaving:
            with trio.move_on_after(SIGN_OFF, shield=True):
                for ticket in leaving:
                    await ticket.left.wait()
        lost: list[LockLost] = []
        for ticket in tickets:
            if ticket.lost:
                emit("lock_lost", ticket.name, tenant_id, fence=ticket.fence)
                lost.append(LockLost(f"the lock {ticket.name!r} (fence {ticket.fence}) was lost before its body ended"))
        return lost

    async def _obtain(self, ticket: Ticket, *, bounded: bool) -> None:
        """Have the ticket settled. When cancelled, nothing is held or queued for it.

        Raises:
            WouldDeadlock: The holder waits for this task, and the wait is not bounded.
        """
        name = ticket.name
        if name not in self._actors and self._shortcuts.ticket(name) is None and await self._shortcuts.take(ticket):
            return
        with waiting_for(f"the lock {name!r}", lambda: self._holder(name), bounded=bounded):
            actor = self._actors.get(name) or self._start(name)
            actor.tell(Want(ticket))
            try:
                with waiting_for_others():
                    await ticket.settled.wait()
            except BaseException:
                ticket.over = True
                actor.tell(Leave(ticket))
                raise

    async def _leave_shortcut(self, ticket: Ticket) -> None:
        if ticket.lost:
            # Whoever lost it waits for nothing more; but the storage may not know yet that it is free.
            with suppress(ActorDied):
                self.supervisor.spawn(f"giving up {ticket.name}", self._shortcuts.leave, ticket)
                ticket.left.set()
                return
        await self._shortcuts.leave(ticket)

    def _check_entry(self, name: str) -> None:
        if not self._is_running():
            raise stopped()
        actor = self._actors.get(name)
        holder = self._shortcuts.ticket(name) or (None if actor is None else actor.holder)
        if holder is not None and not holder.over and holder.caller is current_caller():
            raise LockReentered(f"this task holds the lock {name!r} already and would wait for itself")

    def _holder(self, name: str) -> object | None:
        """The caller that holds the lock in this process, or None."""
        actor = self._actors.get(name)
        ticket = self._shortcuts.ticket(name)
        if ticket is None or ticket.tenure is None:
            ticket = None if actor is None else actor.holder
        return None if ticket is None or ticket.over or ticket.tenure is None else ticket.caller

    def _start(self, name: str) -> LockActor:
        actor = LockActor(name, self._tools, self._ended)
        try:
            self.supervisor.spawn(f"lock {name}", actor.run)
        except (ActorDied, UsageError) as error:
            raise NotStarted("the runtime is not running, or stopping") from error
        self._actors[name] = actor
        return actor

    def _ended(self, actor: LockActor) -> None:
        if self._actors.get(actor.name) is actor:
            del self._actors[actor.name]

    def _is_running(self) -> bool:
        try:
            return not self.supervisor.stopping.is_set()
        except UsageError:  # it never was
            return False

    async def _see_off(self) -> None:
        """When the runtime stops, cancel who holds or waits, and let those who hold give up what they held."""
        self._shortcuts.open()
        try:
            await self.supervisor.stopping.wait()
            for actor in tuple(self._actors.values()):
                actor.tell(Stop())
        finally:
            self._shortcuts.close()
        await self._shortcuts.until_idle()

    # --- without a body -------------------------------------------------------------------------------------

    async def take(self, name: str, lease: float) -> bool:
        """Take a lock for a fixed time, if it is free. It is neither renewed nor tied to a body.

        Raises:
            EnvironmentFault: The storage cannot tell; nothing is held for longer than the lease.
        """
        token = secrets.token_hex(12)
        try:
            answer = await self._storage.request_lock(LockRequest(name, token, lease, self._tools.owner))
        except BaseException:
            # The answer was lost, or we were cancelled before it came: it may have been granted.
            await self._tools.give_up(name, token)
            raise
        if isinstance(answer, LockGrant):
            self._taken[name] = token, answer.until
            self._forget_ended()
        return isinstance(answer, LockGrant)

    async def give_back(self, name: str) -> None:
        """Free a lock that was taken here.

        Raises:
            LockLost: It is not held (any more); whoever holds it now keeps it.
            EnvironmentFault: The storage cannot tell; call again.
        """
        taken = self._taken.get(name)
        # Forgotten only after the answer: a call that failed or was cancelled can be made again.
        held = taken is not None and await self._storage.free_lock(name, taken[0])
        if self._taken.get(name) == taken:
            self._taken.pop(name, None)
        if not held:
            raise LockLost(f"the lock {name!r} is not held here (any more)")

    def _forget_ended(self) -> None:
        """Nobody has to give back what ends by itself. Done where there are twice as many, so that it costs little."""
        if len(self._taken) > self._most_taken:
            now = self._storage.now()
            self._taken = {name: taken for name, taken in self._taken.items() if taken[1] > now}
            self._most_taken = max(2 * len(self._taken), _MANY)

    async def listed(self, limit: int) -> list[LockInfo]:
        """Locks that are held by anybody, by name."""
        return [lock_view(lock) for lock in await self._storage.list_locks(limit)]

    async def standing(self, name: str, limit: int) -> LockStanding:
        """One lock and its queue."""
        return standing_view(name, await self._storage.look_at_lock(name, limit))
