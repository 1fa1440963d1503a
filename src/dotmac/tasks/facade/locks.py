"""Locks, as the manager offers them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, overload

from ..bridge.bridged import BridgedContext, bridged, on_abandoned
from ..bridge.contexts import Opening
from ..bridge.locks import remote_lock
from ..errors import InvalidInput, LockNotAcquired
from ..idempotency import check_name
from ..listings import LockStanding
from ..models import LockInfo
from ..runtime.lock_body import HeldLock, HeldLocks, HoldingAll, HoldingOne
from ..runtime.lock_times import check_ttl, check_wait
from ..runtime.pages import check_limit
from .life import Lifecycle

DEFAULT_TTL = 10.0

Names = list[str] | tuple[str, ...] | AbstractSet[str]


class LockMethods(Lifecycle):
    """Critical sections over all processes that share a storage."""

    @overload
    def lock(
        self, name: str, *, ttl: float = ..., wait: float | None = ...
    ) -> AbstractAsyncContextManager[HeldLock]: ...

    @overload
    def lock(
        self, name: Names, *, ttl: float = ..., wait: float | None = ...
    ) -> AbstractAsyncContextManager[HeldLocks]: ...

    def lock(
        self, name: str | Names, *, ttl: float = DEFAULT_TTL, wait: float | None = None
    ) -> AbstractAsyncContextManager[Any]:
        """Hold a lock, or several, while inside: ``async with manager.lock("invoice:42") as held: held.fence``.

        The lease is renewed for as long as the body runs. Should it be lost all the same (the storage is gone, this
        process was stopped for too long), the body is cancelled, in whichever event loop it runs, before anybody else
        can get the lock. Processes get the lock in order of arrival; tasks of one process as well.

        Args:
            name: The lock, or several: they are taken in sorted order, and all given back if one is not granted.
            ttl: Seconds until others may have the lock after this process died. 0.05 to 86,400.
            wait: Seconds to wait for it (for all of them together); 0: try once; None: as long as it takes.

        Returns:
            An async context manager for one block; it gives a `HeldLock`, or `HeldLocks` by name where several were
            asked for.

        Raises:
            LockNotAcquired: It was not granted within `wait`. Nothing is held, no place is queued.
            LockReentered: This task holds it already.
            LockLost: The lease could not be kept, so the body was cancelled, or had ended too late. If the body
                raised an error of its own, both come in an ExceptionGroup, the body's error first.
            InvalidInput: A name or a number makes no sense.
            UsageError: The context was entered before.
        """
        single = isinstance(name, str)
        names = [name] if isinstance(name, str) else _checked_names(name)
        _check(names, ttl, wait)
        return self._placed(lambda: self._holding(names, ttl, wait, single=single))

    @overload
    def try_lock(self, name: str, *, ttl: float = ...) -> AbstractAsyncContextManager[HeldLock | None]: ...

    @overload
    def try_lock(self, name: Names, *, ttl: float = ...) -> AbstractAsyncContextManager[HeldLocks | None]: ...

    def try_lock(self, name: str | Names, *, ttl: float = DEFAULT_TTL) -> AbstractAsyncContextManager[Any | None]:
        """As `lock` with ``wait=0``, but the body runs in any case: with None where the lock was not free.

        ``async with manager.try_lock("nightly") as held: if held is None: return``
        """
        single = isinstance(name, str)
        names = [name] if isinstance(name, str) else _checked_names(name)
        _check(names, ttl, None)
        return BridgedContext(self, lambda: self._trying(names, ttl, single=single), remote_lock)

    async def _untake(self, taken: bool, key: str, timeout_seconds: float) -> None:
        """A lock was taken for a caller who is gone."""
        if taken:
            await self._hosted().locks.give_back(key)

    @on_abandoned(_untake)
    async def acquire_lock(self, key: str, timeout_seconds: float) -> bool:
        """Take a lock for a fixed time if it is free; False if somebody holds it. Does not wait, does not renew.

        Prefer `lock`: it renews the lease, and stops the work when it cannot.

        Args:
            key: The lock's name.
            timeout_seconds: When it ends by itself. 0.05 to 86,400.

        Raises:
            InvalidInput: An argument makes no sense.
        """
        check_name("key", key)
        check_ttl(timeout_seconds, "timeout_seconds")
        return await self._hosted().locks.take(key, timeout_seconds)

    @bridged
    async def release_lock(self, key: str) -> None:
        """Free a lock that this manager acquired with `acquire_lock`.

        Raises:
            LockLost: It does not hold it any more; whoever holds it now keeps it.
            InvalidInput: The key can be no lock's.
        """
        check_name("key", key)
        await self._hosted().locks.give_back(key)

    @bridged
    async def list_locks(self, limit: int = 100) -> list[LockInfo]:
        """Locks that are held at the moment, by whichever process, ordered by name.

        Args:
            limit: At most so many, from 1 to 1000.

        Raises:
            InvalidInput: The limit makes no sense.
        """
        check_limit(limit)
        return await self._hosted().locks.listed(limit)

    @bridged
    async def inspect_lock(self, name: str, limit: int = 100) -> LockStanding:
        """One lock as it stands: who holds it, and which processes wait for it, in the order of their turns.

        Args:
            name: The lock's; one that nobody ever held is free.
            limit: At most so many of those who wait, from 1 to 1000.

        Raises:
            InvalidInput: The name is no name, or the limit makes no sense.
        """
        check_name("name", name)
        check_limit(limit)
        return await self._hosted().locks.standing(name, limit)

    def _placed(self, opening: Opening[Any]) -> AbstractAsyncContextManager[Any]:
        hosting = self._hosting
        if hosting is not None and hosting.home.is_here:
            return opening()
        return BridgedContext(self, opening, remote_lock)

    def _holding(self, names: list[str], ttl: float, wait: float | None, *, single: bool) -> HoldingOne | HoldingAll:
        return (HoldingOne if single else HoldingAll)(self._hosted().locks, names, ttl=ttl, wait=wait)

    @asynccontextmanager
    async def _trying(
        self, names: list[str], ttl: float, *, single: bool
    ) -> AsyncIterator[HeldLock | HeldLocks | None]:
        async with AsyncExitStack() as stack:
            held: HeldLock | HeldLocks | None = None
            # Only entering is tried: what the body raises is its own, even if it is this very error.
            with suppress(LockNotAcquired):
                held = await stack.enter_async_context(self._holding(names, ttl, 0, single=single))
            yield held


def _checked_names(names: Names) -> list[str]:
    if not isinstance(names, Iterable):
        raise InvalidInput("name", f"must be a string, or several, not {names!r:.80}")
    listed = list(names)
    if not listed:
        raise InvalidInput("name", "must be a name, or at least one")
    return listed


def _check(names: list[str], ttl: float, wait: float | None) -> None:
    for name in names:
        check_name("name", name)
    check_ttl(ttl)
    check_wait(wait)
