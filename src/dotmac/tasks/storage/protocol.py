"""The contract every storage fulfils, and the reason each verb exists.

Each verb is atomic: it happens wholly or not at all, whatever else runs at the same time. Each that changes
something is safe to send again with the same arguments, because a reply can be lost after the deed. Time is the
storage's own. A verb that cannot be carried out raises an error of `dotmac.tasks.errors`; none of them is ever
turned into None or False.

Common to all verbs:
    StorageUnavailable: No answer within the storage's deadline; the verb may or may not have happened.
    StorageRefused: The storage answered that it will not do this now. Nothing happened.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..models import Finding, OperationStatus
from .key_records import ClaimVerdict, Completion, IdempotencyRecord, NewRecord, RecordPage
from .records import (
    AdoptableSaga,
    Adoption,
    Append,
    Appended,
    Creation,
    LockGrant,
    LockQueued,
    LockRecord,
    LockRequest,
    LockState,
    NewSaga,
    Purged,
    Renewal,
    SagaFilter,
    SagaMark,
    SagaMeta,
    SagaPage,
    SagaRecord,
    Snapshot,
    WorkerRecord,
)
from .seed_protocol import SeedStore

Observer = Callable[[str, float, BaseException | None], None]
"""Called after each verb, unless it is false, with the verb's name, its seconds, and what it raised, if it did."""


class RecordStore(Protocol):
    """Idempotency records: one claim at a time, one result for ever."""

    async def create_record(self, new: NewRecord) -> tuple[bool, IdempotencyRecord]:
        """Create a pending record, or give the one that exists; the flag says which."""
        ...

    async def claim_record(self, new: NewRecord, *, token: str, owner: str, lease: float) -> ClaimVerdict:
        """Claim the key for `lease` seconds, creating the record if need be.

        Granted if the key is new, pending, abandoned, claimed by this very token, or its claim's lease is over.
        A record that belongs to a saga is never granted, not even to the token under which the saga was started.
        `claimed_at` rises with each claim.
        A claimed record is kept for its ttl beyond the lease, so a claim that was lost is known to the next one.
        """
        ...

    async def renew_claim(self, key: str, token: str, lease: float) -> float:
        """Prolong the claim to `lease` seconds from now; gives the new end.

        Raises:
            ClaimLost: The claim is another's, given back or completed, or a saga took it over.
        """
        ...

    async def complete_record(self, completion: Completion) -> IdempotencyRecord:
        """Store how the operation ended.

        Raises:
            ClaimLost: The claim is another's or a saga's, or the record has another ending already.
            IdempotencyKeyNotFound: There is no such record.
        """
        ...

    async def abandon_claim(self, key: str, token: str) -> None:
        """Give the claim back: nothing was done under it. No error if it is given back already.

        A record that was created before is pending then. One that this claim created goes; if an earlier claim had
        created it and was lost, it is pending, and the next claim still counts the lost one.

        Raises:
            ClaimLost: The claim is another's or completed, or a saga took it over; nothing changed.
        """
        ...

    async def get_record(self, key: str) -> IdempotencyRecord | None:
        """The record, or None."""
        ...

    async def list_records(self, tenant_id: str | None, limit: int, cursor: str | None = None) -> RecordPage:
        """Records of this tenant, or of all, in no particular order.

        A page has at most `limit`, but may have fewer, even none, while another one follows. Over all pages, each
        record that is there from the first page to the last is given, perhaps twice where the storage is at work.

        Raises:
            InvalidInput: The cursor is none of this list.
        """
        ...


class SagaStore(Protocol):
    """Sagas: a journal each, one owner at a time, fenced by the epoch."""

    def new_saga_id(self, key: str | None = None) -> str:
        """A fresh, time-ordered id. With an idempotency key, in that key's partition."""
        ...

    async def create_saga(self, new: NewSaga) -> Creation:
        """Create the saga, and its idempotency record if it has a key, in one step; or say what is there.

        Raises:
            SagaStateError: Another creation (another `entry_id`) made a saga with this id.
        """
        ...

    async def append(self, entry: Append) -> Appended:
        """Add an entry to the journal.

        An entry with `unless_cancelled` is not written while a cancel request is stored; the answer then has no time.
        A request and a completion thus exclude each other, in whichever order they arrive.

        Raises:
            OwnershipLost: The epoch is not the newest one. Stop, touch nothing.
            JournalConflict: Another entry stands at that position under this epoch.
            SagaNotFound: There is no such saga (any more).
        """
        ...

    async def adopt_saga(self, adoption: Adoption) -> SagaRecord:
        """Become the owner: epoch + 1, `SagaAdopted` journaled, head and journal read (no notes).

        Raises:
            OwnershipLost: The epoch is another one.
            SagaNotFound: There is no such saga.
            UnreadableSaga: Its journal needs a newer format than the worker reads. The worker did not become the owner;
                a saga that was due, or belonged to a worker, is due after `Adoption.pause`, without an owner.
        """
        ...

    async def keep_snapshot(self, saga_id: str, epoch: int, snapshot: Snapshot) -> None:
        """Keep a snapshot of the saga's state, instead of an earlier one, for who adopts the saga with a long journal.

        Nothing is kept if the epoch is not the newest one, or the saga is gone.
        """
        ...

    async def release_saga(self, saga_id: str, epoch: int, due_at: float | None) -> None:
        """Stop owning, without an entry; due for adoption at `due_at`. Raises OwnershipLost, SagaNotFound.

        Given up here or by an append, a saga that was asked to cancel under this very ownership is due at once: its
        owner may not have seen the request. Sent again, it changes nothing.
        """
        ...

    async def due_sagas(self, limit: int, *, max_age: float = 0.0) -> list[AdoptableSaga]:
        """Unowned sagas whose time has come, highest priority first; what `DUE_TOPIC` announced is among them.

        One that became unowned, due within `ANNOUNCED_AHEAD`, in the last `max_age` seconds may be left out.
        """
        ...

    async def missing_handlers(self) -> dict[str, int]:
        """How many sagas wait for each handler that no worker had, by `SagaMeta.waits_for`."""
        ...

    async def waiting_sagas(self, waits_for: str, limit: int) -> list[AdoptableSaga]:
        """Unowned sagas that wait for this handler, highest priority first, due or not."""
        ...

    async def orphaned_sagas(self, worker_id: str, limit: int) -> list[AdoptableSaga]:
        """Sagas that this (lost) worker owned, highest priority first."""
        ...

    async def request_cancel(self, saga_id: str, reason: str) -> SagaMeta:
        """Leave a cancel request for the owner and wake it; an unowned saga becomes due. Raises SagaNotFound.

        The reason of the first request is kept. A saga with a final status is left as it is.
        """
        ...

    async def load_saga(self, saga_id: str, after: SagaMark | None = None) -> SagaRecord | None:
        """The saga as of one moment, or None: there is no such saga.

        Args:
            saga_id: The saga.
            after: `SagaRecord.mark` of an earlier record: the answer leaves out what that record had. The answer is
                the whole saga (without `SagaRecord.after`) where the stored saga does not contain that position: the
                saga was replaced, or a fail-over of the storage lost entries.
        """
        ...

    async def saga_meta(self, saga_id: str) -> SagaMeta | None:
        """The saga's head, or None."""
        ...

    async def count_sagas(self) -> dict[OperationStatus, int]:
        """How many sagas there are of each status that a saga can have. Not of one moment, where work goes on."""
        ...

    async def list_sagas(self, where: SagaFilter, limit: int, cursor: str | None = None) -> SagaPage:
        """Heads of sagas, newest first."""
        ...


class WorkerStore(Protocol):
    """Workers: one lease a process, however many sagas it owns."""

    async def register_worker(self, worker_id: str, lease: float, info: dict[str, str]) -> float:
        """Begin a lease of `lease` seconds; gives the storage's time."""
        ...

    async def renew_worker(self, worker_id: str, lease: float, info: dict[str, str] | None = None) -> Renewal:
        """Prolong the lease to `lease` seconds from now. Raises OwnershipLost once it is over: register anew.

        Args:
            worker_id: The worker.
            lease: Seconds.
            info: Replaces what the worker was registered with; None: that stays.
        """
        ...

    async def retire_worker(self, worker_id: str) -> bool:
        """End the lease at once and forget the worker if it owns nothing; else it counts as lost from now on.

        Gives whether there was a lease to end.
        """
        ...

    async def list_workers(self, *, max_age: float = 0.0) -> list[WorkerRecord]:
        """All workers that are alive or still own something.

        One that got a saga after it had been forgotten (its request was late) is among them, its lease over; in the
        last `max_age` seconds, it may be left out.
        """
        ...


class LockStore(Protocol):
    """Locks: a lease with an owner's token, a fence that only rises, and a queue in order of arrival."""

    async def request_lock(self, request: LockRequest) -> LockGrant | LockQueued:
        """Take the lock, or a place in its queue (kept by asking again in time).

        With `instead_of`, that grant or place is given up first, and its holder joins the end of the queue.
        """
        ...

    async def extend_lock(self, name: str, token: str, lease: float) -> float:
        """Prolong the lease to `lease` seconds from now; gives its end. Raises LockLost; never revives a lease.

        It never shortens one either, so requests that overtake each other leave the longest lease.
        """
        ...

    async def free_lock(self, name: str, token: str) -> bool:
        """Give up the lock, or the place in its queue; whether this token held the lock. Wakes the next waiter.

        Called again after it did, it answers False, as for a lease that ran out. What a storage itself sends again, for
        want of an answer, is answered as the first time.
        """
        ...

    async def list_locks(self, limit: int) -> list[LockRecord]:
        """Locks that are held, by name."""
        ...

    async def look_at_lock(self, name: str, limit: int) -> LockState:
        """One lock and at most `limit` of those who wait for it, in the order of their turns. Changes nothing."""
        ...


class Watch(Protocol):
    """Wake-up hints for one topic, from the moment the watch was opened."""

    async def wait(self) -> None:
        """Return when something was published since the last return. A hint: look at the state, and poll too."""
        ...


class StorageProtocol(SeedStore, RecordStore, SagaStore, WorkerStore, LockStore, Protocol):
    """Everything a runtime needs of its storage."""

    observer: Observer | None

    def opened(self) -> AbstractAsyncContextManager[None]:
        """Connect, and hold the connection while inside; may be entered by several managers at once."""
        ...

    async def examine(self) -> list[Finding]:
        """Look the storage over, open or not: each finding says what is wrong and what mends it. Raises for none."""
        ...

    async def causes_of_loss(self) -> list[str]:
        """What can have lost stored data, newest first; empty where nothing points to a cause. Raises nothing."""
        ...

    def now(self) -> float:
        """The storage's time in Unix seconds, as well as it is known here without asking."""
        ...

    def watch(self, topic: str) -> AbstractAsyncContextManager[Watch]:
        """Listen to a topic; listening has begun when the context manager is entered."""
        ...

    async def purge(self, limit: int) -> Purged:
        """Remove what is past its retention, at most `limit` things of each kind. A saga that is owned stays."""
        ...


def saga_topic(saga_id: str) -> str:
    """Published when a saga reaches a final status."""
    return f"saga:{saga_id}"


def record_topic(key: str) -> str:
    """Published when a claim on this idempotency key ends, either way."""
    return f"key:{key}"


def lock_topic(listener: str) -> str:
    """Published when a lock may be free for a waiter that named this listener."""
    return f"lock:{listener}"


def worker_topic(worker_id: str) -> str:
    """Published when a saga of this worker was asked to cancel."""
    return f"worker:{worker_id}"


ANNOUNCED_AHEAD = 10.0  # seconds; what is due later, a look will find before it is
DUE_TOPIC = "due"
"""Published when an unowned saga became due at once, or within `ANNOUNCED_AHEAD`."""
