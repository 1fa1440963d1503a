"""How locks look to their users."""

from __future__ import annotations

from ..listings import LockStanding, LockWaiter
from ..models import LockInfo
from ..saga.views import utc
from ..storage.records import LockRecord, LockState


def lock_view(lock: LockRecord) -> LockInfo:
    """A lock that is held."""
    return LockInfo(
        name=lock.name,
        owner=lock.owner,
        fence=lock.fence,
        since=utc(lock.since),
        until=utc(lock.until),
        waiters=lock.waiters,
    )


def standing_view(name: str, state: LockState) -> LockStanding:
    """A lock and its queue."""
    return LockStanding(
        name=name,
        held=None if state.held is None else lock_view(state.held),
        queue=[LockWaiter(waiter.owner, utc(waiter.since), utc(waiter.until)) for waiter in state.queue],
        waiters=state.waiters,
    )
