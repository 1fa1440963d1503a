"""What runs under locks: `HoldingOne` and `HoldingAll` get them, guard the body, and report truthfully how it ended.

How a body can end, and what its caller sees:

- it ended in time: nothing, or its own error, as it is;
- a lease was lost: the body is cancelled, or had ended too late: `LockLost`; an `ExceptionGroup` of several if
  several locks were lost;
- a lease was lost and the body raised an error of its own: an `ExceptionGroup` with the body's error first, then one
  `LockLost` for each lock that was lost;
- it was cancelled from outside: the cancellation, even if a lease was lost as well (the metrics tell).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

import trio

from ..actors.failures import split_failure
from ..bridge.bridged import USED
from ..errors import LockLost, UsageError
from .lock_holding import Body, Ticket
from .lock_renewals import LockRenewals
from .lock_service import LockService
from .lock_times import check_ttl
from .wait_graph import enter_scope, leave_scope


class HeldLock:
    """A lock while its body runs.

    Attributes:
        name: The lock's.
        fence: Rises with every holder of this name, in whichever process. Send it along with every write to what the
            lock guards, and let that refuse a fence lower than the highest it has seen.
    """

    __slots__ = ("_renewals", "_ticket", "fence", "name")

    def __init__(self, ticket: Ticket, renewals: LockRenewals) -> None:
        self._ticket = ticket
        self._renewals = renewals
        self.name = ticket.name
        self.fence = ticket.fence

    def __repr__(self) -> str:
        return f"<HeldLock {self.name!r} fence {self.fence}>"

    @property
    def deadline(self) -> float:
        """Until when the lock is ours for certain, unless it is renewed: in seconds of ``trio.current_time()``.

        It moves on as the lease is renewed. When it passes, the body is cancelled.
        """
        return self._ticket.deadline

    async def extend(self, ttl: float) -> None:
        """Have the lease last for `ttl` seconds from now, and renew it by that from now on; never shortens it.

        Args:
            ttl: 0.05 to 86,400.

        Raises:
            InvalidInput: `ttl` makes no sense; nothing has changed.
            LockLost: The lock is not held any more. (In a body that was cancelled for that, the cancellation goes on.)
            StorageUnavailable: No answer: the lease lasts as long as it did, or as long as was asked for.
            StorageRefused: The lease lasts as long as it did.
        """
        check_ttl(ttl)  # all locks of this process are renewed by one task, which one wrong number would end
        ticket = self._ticket
        if ticket.tenure is None or ticket.over:
            raise LockLost(f"the lock {self.name!r} is not held any more")
        ticket.ttl = ticket.tenure.lease = ttl
        try:
            await self._renewals.extend(ticket.tenure, ttl)
        except LockLost:
            await trio.lowlevel.checkpoint_if_cancelled()  # the body's scope reports it, once
            raise


class HeldLocks(Mapping[str, HeldLock]):
    """Several locks while their body runs, by name."""

    def __init__(self, locks: Sequence[HeldLock]) -> None:
        self._locks = {lock.name: lock for lock in locks}

    def __getitem__(self, name: str) -> HeldLock:
        return self._locks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._locks)

    def __len__(self) -> int:
        return len(self._locks)

    @property
    def deadline(self) -> float:
        """The earliest of all deadlines, in seconds of ``trio.current_time()``."""
        return min(lock.deadline for lock in self._locks.values())

    async def extend(self, ttl: float) -> None:
        """Extend each of them; see `HeldLock.extend`."""
        for lock in self._locks.values():
            await lock.extend(ttl)


class _Holding:
    """Holds locks while inside; taken in sorted order, so that two who want the same never block each other.

    Entered once. Classes and no generators: those would be a fair part of what an uncontended lock costs here.

    Args:
        service: Of the runtime.
        names: The locks; a name given twice counts once.
        ttl: Seconds of each lease.
        wait: Seconds to wait for all of them together; see `LockService.acquire`, also for what is raised.
        tenant_id: For metrics.
    """

    __slots__ = ("_body", "_names", "_outer", "_service", "_tenant_id", "_ttl", "_used", "_wait")

    def __init__(
        self, service: LockService, names: Sequence[str], *, ttl: float, wait: float | None, tenant_id: str = ""
    ) -> None:
        self._service = service
        self._names = names
        self._ttl = ttl
        self._wait = wait
        self._tenant_id = tenant_id
        self._body = Body()
        self._used = False

    async def acquire(self) -> None:
        """Wait for the first lock before the block is entered, which is then entered without waiting for it.

        It is given back by the block, or by `abandon`. A lease that is lost before the block cancels the block.
        """
        try:
            await self._service.acquire(min(self._names), self._ttl, self._wait, self._body, self._tenant_id)
        except BaseException:
            await self.abandon()  # granted in the moment in which it failed
            raise

    async def abandon(self) -> None:
        """Give up what `acquire` got, without a block."""
        await self._service.leave(self._body.tickets, self._tenant_id)

    @property
    def lost(self) -> bool:
        """Whether a lease is over, of those that were granted."""
        return any(ticket.lost or trio.current_time() >= ticket.deadline for ticket in self._body.tickets)

    async def _enter(self) -> list[HeldLock]:
        if self._used:  # before anything is held that the one body could not give back
            raise UsageError(USED)
        self._used = True
        names = sorted(set(self._names))
        wait, ends = self._wait, trio.current_time() + self._wait if self._wait else 0.0
        if not self._body.tickets:
            await self.acquire()
        self._outer = enter_scope(self._body.scope)
        self._body.scope.__enter__()  # not before: until then there is nothing that could be lost
        try:
            for name in names[1:]:
                left = max(ends - trio.current_time(), 0.0) if wait else wait
                await self._service.acquire(name, self._ttl, left, self._body, self._tenant_id)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return [HeldLock(ticket, self._service.renewals) for ticket in self._body.tickets]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        failure = error
        leave_scope(self._outer)
        try:
            if self._body.scope.__exit__(kind, error, trace):
                failure = None
        except BaseException as rest:
            failure = rest
        try:
            lost = await self._service.leave(self._body.tickets[::-1], self._tenant_id)
            if failure is None:
                if lost:
                    raise lost[0] if len(lost) == 1 else ExceptionGroup("locks were lost before their body ended", lost)
                return True
            if lost and split_failure(failure)[0] is not None:
                raise BaseExceptionGroup("the body failed, and its lock was lost", [failure, *lost]) from None
            if failure is not error:
                raise failure
            return False
        finally:
            del failure, error  # they refer to this frame, which refers to them


class HoldingOne(_Holding):
    """Holds one lock while inside."""

    __slots__ = ()

    async def __aenter__(self) -> HeldLock:
        return (await self._enter())[0]


class HoldingAll(_Holding):
    """Holds several locks while inside."""

    __slots__ = ()

    async def __aenter__(self) -> HeldLocks:
        return HeldLocks(await self._enter())
