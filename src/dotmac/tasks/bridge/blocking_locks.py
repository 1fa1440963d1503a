"""Locks for threads: ``with manager.sync.lock("invoice:42") as held``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..errors import InternalError, NotStarted
from ..runtime.lock_body import HeldLock, HeldLocks
from .callers import ThreadWait, refuse_event_loops
from .contexts import Opening, Stay, concluded
from .locks import BlockingLock
from .runtime_loop import RuntimeLoop, unwrap

T = TypeVar("T")


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
