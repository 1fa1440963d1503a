"""Locks in memory: a lease each, a fence that only rises, and a queue in order of arrival."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from ...errors import LockLost
from ..records import MICROSECONDS, LockGrant, LockQueued, LockRecord, LockRequest, LockState, LockWaiting
from .core import MemoryCore, verb


@dataclass(slots=True)
class _Waiter:
    topic: str
    owner: str
    since: float
    until: float = 0.0


@dataclass(slots=True)
class _Lock:
    fence: int = 0  # the highest that was given out
    fences: int = 1  # how many of those belong to the present grant
    token: str | None = None
    owner: str = ""
    since: float = 0.0
    until: float = 0.0
    queue: OrderedDict[str, _Waiter] = field(default_factory=OrderedDict)

    @property
    def first_fence(self) -> int:
        return self.fence - self.fences + 1


class MemoryLocks(MemoryCore):
    """A lock's entry outlives its grants until the clock has overtaken its fence, so the fence never falls."""

    def __init__(self) -> None:
        super().__init__()
        self._locks: dict[str, _Lock] = {}

    @verb
    def request_lock(self, request: LockRequest) -> LockGrant | LockQueued:
        """See `LockStore`."""
        lock = self._locks.setdefault(request.name, _Lock())
        now = self._tidy(lock)
        if request.instead_of is not None:
            lock.queue.pop(request.instead_of, None)
            if lock.token == request.instead_of:
                lock.token = None
        if lock.token == request.token:
            return LockGrant(lock.first_fence, lock.until)
        head = next(iter(lock.queue), request.token)
        if lock.token is None and head == request.token:
            lock.queue.pop(request.token, None)
            lock.token, lock.owner = request.token, request.owner
            lock.since, lock.until = now, now + request.lease
            # The clock's part lets the fence rise even where this entry was lost with its process.
            first = max(lock.fence + 1, int(now * MICROSECONDS))
            lock.fence, lock.fences = first + request.fences - 1, request.fences
            return LockGrant(first, lock.until)
        if request.wait is not None:
            waiter = lock.queue.setdefault(request.token, _Waiter(request.topic, request.owner, now))
            waiter.until = now + request.wait
        self._wake_head(lock)
        ahead = list(lock.queue).index(request.token) if request.token in lock.queue else len(lock.queue)
        frees_at = lock.until if lock.token is not None else next(iter(lock.queue.values())).until
        return LockQueued(ahead, max(frees_at - now, 0.0))

    @verb
    def extend_lock(self, name: str, token: str, lease: float) -> float:
        """See `LockStore`."""
        lock = self._locks.get(name)
        now = self._tidy(lock) if lock is not None else 0.0
        if lock is None or lock.token != token:
            raise LockLost(f"the lock {name!r} is not held any more")
        lock.until = max(lock.until, now + lease)
        return lock.until

    @verb
    def free_lock(self, name: str, token: str) -> bool:
        """See `LockStore`."""
        lock = self._locks.get(name)
        if lock is None:
            return False
        self._tidy(lock)
        held = lock.token == token
        if held:
            lock.token = None
        lock.queue.pop(token, None)
        self._wake_head(lock)
        self._forget_idle(name, lock)
        return held

    @verb
    def list_locks(self, limit: int) -> list[LockRecord]:
        """See `LockStore`."""
        self.forget_ended_locks()
        held = [(name, lock) for name, lock in sorted(self._locks.items()) if lock.token is not None]
        return [_record(name, lock, lock.token or "") for name, lock in held[:limit]]

    @verb
    def look_at_lock(self, name: str, limit: int) -> LockState:
        """See `LockStore`."""
        lock = self._locks.get(name, _Lock())
        self._tidy(lock)
        held = None if lock.token is None else _record(name, lock, lock.token)
        queue = [LockWaiting(waiter.owner, waiter.since, waiter.until) for waiter in lock.queue.values()]
        return LockState(held, queue[:limit], len(queue))

    def forget_ended_locks(self) -> None:
        """Drop locks that nobody holds or waits for any more, if nobody gave them up."""
        for name, lock in tuple(self._locks.items()):
            self._tidy(lock)
            self._forget_idle(name, lock)

    def _tidy(self, lock: _Lock) -> float:
        """Drop what has run out: the lease, and places of waiters that did not come back. Gives the time."""
        now = self.now()
        if lock.token is not None and lock.until <= now:
            lock.token = None
        for token in [token for token, waiter in lock.queue.items() if waiter.until <= now]:
            del lock.queue[token]
        return now

    def _forget_idle(self, name: str, lock: _Lock) -> None:
        # The clock carries the fence on once it is past it, so names that are used once do not pile up.
        if lock.token is None and not lock.queue and lock.fence < int(self.now() * MICROSECONDS):
            del self._locks[name]

    def _wake_head(self, lock: _Lock) -> None:
        if lock.token is None and lock.queue:
            self.publish(next(iter(lock.queue.values())).topic)


def _record(name: str, lock: _Lock, token: str) -> LockRecord:
    return LockRecord(name, lock.owner, token, lock.first_fence, lock.since, lock.until, len(lock.queue))
