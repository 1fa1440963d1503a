"""Locks that are held in the runtime's trio run while their bodies run elsewhere."""

from __future__ import annotations

from typing import Any

from ..errors import LockLost
from ..runtime.lock_body import HeldLock, HeldLocks
from .contexts import RemoteContext, Stay
from .runtime_loop import RuntimeLoop


class RemoteLock(HeldLock):
    """A held lock, for a body in an event loop of its own.

    Args:
        lock: The lock, as it is held in the trio run.
        crossed: The context that holds it.
    """

    __slots__ = ("_crossed", "_lock")

    def __init__(self, lock: HeldLock, crossed: RemoteContext[Any]) -> None:
        self._lock = lock
        self._crossed = crossed
        self.name = lock.name
        self.fence = lock.fence

    @property
    def deadline(self) -> float:
        """As `HeldLock.deadline`, in seconds of ``time.monotonic()``, which is asyncio's ``loop.time()``."""
        return self._lock.deadline + self._crossed.stay.clock_offset

    async def extend(self, ttl: float) -> None:
        """See `HeldLock.extend`."""
        crossed = self._crossed
        try:
            await crossed.home.run(lambda: extend(self._lock, crossed.stay, ttl))
        except LockLost:
            await crossed.scope.checkpoint_if_cancelled()  # the context reports it, once
            raise


class BlockingLock:
    """A lock while its body runs in a thread.

    A thread cannot be cancelled. A body that takes longer than the lease without a connection to the storage has to
    look at `deadline` itself, or let the guarded resource compare the fence.

    Attributes:
        name: The lock's.
        fence: See `HeldLock`.
    """

    __slots__ = ("_home", "_lock", "_stay", "fence", "name")

    def __init__(self, lock: HeldLock, home: RuntimeLoop, stay: Stay[Any]) -> None:
        self._lock = lock
        self._home = home
        self._stay = stay
        self.name = lock.name
        self.fence = lock.fence

    def __repr__(self) -> str:
        return f"<BlockingLock {self.name!r} fence {self.fence}>"

    @property
    def deadline(self) -> float:
        """Until when the lock is ours for certain, unless it is renewed: in seconds of ``time.monotonic()``."""
        return self._lock.deadline + self._stay.clock_offset

    @property
    def lost(self) -> bool:
        """Whether it was lost, so that leaving the block will raise `LockLost`."""
        return self._stay.cut.is_set()

    def extend(self, ttl: float) -> None:
        """See `HeldLock.extend`."""
        self._home.run_from_thread(lambda: extend(self._lock, self._stay, ttl))


async def extend(lock: HeldLock, stay: Stay[Any], ttl: float) -> None:
    """Extend a lock in the trio run that it is held in."""
    try:
        await lock.extend(ttl)
    except LockLost:
        await stay.cut.wait()  # the body hears of it first
        raise


def remote_lock(held: HeldLock | HeldLocks | None, crossed: RemoteContext[Any]) -> HeldLock | HeldLocks | None:
    """What a body elsewhere gets of what was held."""
    if isinstance(held, HeldLock):
        return RemoteLock(held, crossed)
    if isinstance(held, HeldLocks):
        return HeldLocks([RemoteLock(lock, crossed) for lock in held.values()])
    return held
