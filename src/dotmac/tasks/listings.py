"""What is shown of idempotency keys in lists, and of a lock with its queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .models import LockInfo, OperationStatus


@dataclass(frozen=True, slots=True)
class IdempotencyKeySummary:
    """An idempotency key in a list: whose it is and how it stands, without parameters, result and error.

    Attributes:
        key: The record's own key, a digest; never the text that a caller chose.
        expires_at: When it is forgotten (storage's time, UTC).
        claims: How often the operation was claimed; above 1 an earlier claimant was lost.
        owner: Who claimed it.
        saga_id: The saga that carries the operation out.
    """

    key: str
    tenant_id: str
    user_id: str | None
    operation_type: str
    status: OperationStatus
    created_at: datetime
    expires_at: datetime
    claims: int
    owner: str | None
    saga_id: str | None


@dataclass(frozen=True, slots=True)
class IdempotencyKeyList:
    """A page of keys, in no particular order.

    Attributes:
        keys: At most as many as were asked for; fewer, or none, also where more pages follow.
        cursor: For the page that follows; None: this is the last one.
    """

    keys: list[IdempotencyKeySummary]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class LockWaiter:
    """A process in a lock's queue; any number of its tasks may wait in this one place.

    Attributes:
        owner: The process, as ``host:pid``.
        since: When it joined the queue (storage's time, UTC).
        until: How long its place is kept unless it asks again, as it does every second or so.
    """

    owner: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class LockStanding:
    """A lock as it stands.

    Attributes:
        held: By whom, since when; None: it is free.
        queue: Processes that wait for it, in the order of their turns.
        waiters: How many they are; `queue` may have only the first of them.
    """

    name: str
    held: LockInfo | None
    queue: list[LockWaiter]
    waiters: int
