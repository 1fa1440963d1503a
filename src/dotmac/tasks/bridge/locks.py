"""Locks that the runtime's trio run holds while their bodies run in another event loop or in a thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..errors import InternalError, LockLost, NotStarted
from ..runtime.lock_body import HeldLock, HeldLocks
from .callers import ThreadWait, refuse_event_loops
from .contexts import Opening, RemoteContext, Stay, concluded
from .runtime_loop import RuntimeLoop, unwrap

T = TypeVar("T")


class RemoteLock(HeldLock):
    """A held lock whose body runs in another event loop than the runtime.

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
        await stay.cut.wait()  # the loss cancels the body before the caller gets the error
        raise


def remote_lock(held: HeldLock | HeldLocks | None, crossed: RemoteContext[Any]) -> HeldLock | HeldLocks | None:
    """What a body elsewhere gets of what was held."""
    if isinstance(held, HeldLock):
        return RemoteLock(held, crossed)
    if isinstance(held, HeldLocks):
        return HeldLocks([RemoteLock(lock, crossed) for lock in held.values()])
    return held


class BlockingContext(AbstractContextManager[T], Generic[T]):
    """A context of the runtime's trio run whose body runs in a thread. See `RemoteContext`; a thread is not cancelled.

    Args:
        home: Gives the trio run.
        opening: Makes the context, there.
        adapt: Makes what the body gets of what the context gave.
    """

    def __init__(
        self, home: Callable[[], RuntimeLoop], opening: Opening[Any], adapt: Callable[[Any, RuntimeLoop, Stay[Any]], T]
    ) -> None:
        self._find_home = home
        self._opening = opening
        self._adapt = adapt
        self._home: RuntimeLoop
        self._stay: Stay[Any]

    def __enter__(self) -> T:
        refuse_event_loops()
        home = self._find_home()
        wait = ThreadWait()
        stay = Stay(home, self._opening, wait.notify)
        interrupted = wait.block(stay.send, stay.cancel)
        if not stay.ended:
            self._home, self._stay = home, stay  # not before: another thread may be inside, which this is refused for
            if interrupted is None:
                return self._adapt(stay.value, home, stay)
            self._leave(None, unfinished=True)
        unwrap(stay.outcome, interrupted)
        raise InternalError("a context that could not be entered ended as if nothing had happened")

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        own = error if isinstance(error, Exception) else None
        if error is not own:  # Ctrl-C
            self._stay.cancel()
        interrupted = self._leave(own, unfinished=error is not own)
        try:
            return concluded(self._stay, error, error, interrupted) and error is not None
        finally:
            del error, own, interrupted  # they refer to this frame

    def _leave(self, error: BaseException | None, *, unfinished: bool) -> BaseException | None:
        wait = ThreadWait()

        def leave() -> None:
            self._home.post(lambda: self._stay.leave(error, wait.notify, unfinished=unfinished))

        try:
            return wait.block(leave, self._stay.cancel)
        except NotStarted:  # the trio run is over, and so is the stay
            return None


def blocking_lock(held: HeldLock, home: RuntimeLoop, stay: Stay[Any]) -> BlockingLock:
    """What a body in a thread gets of a lock."""
    return BlockingLock(held, home, stay)


def blocking_locks(held: HeldLocks, home: RuntimeLoop, stay: Stay[Any]) -> dict[str, BlockingLock]:
    """The same of several, by name."""
    return {name: BlockingLock(lock, home, stay) for name, lock in held.items()}
