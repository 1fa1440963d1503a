"""What goes in and comes out about sagas, workers and locks. Times are Unix seconds of the storage.

Payloads (`events`) are JSON bytes that a storage keeps and never looks into.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from ..models import OperationStatus
from ..saga.events import JOURNAL_FORMAT
from .key_records import Completion, IdempotencyRecord, NewRecord

SAGA_STATUSES = tuple(status for status in OperationStatus if status is not OperationStatus.UNKNOWN)
"""The statuses that a saga can have; ``unknown`` is for steps."""

MICROSECONDS = 1_000_000
"""In a second: the resolution of stored times, and the unit of fences."""


def fence_at(at: float) -> int:
    """The fence of what began at this time of the storage."""
    return round(at * MICROSECONDS)


# --- sagas ----------------------------------------------------------------------------------------------------


class SagaMeta(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The head of a saga: all that lists, recovery and fencing need, without its journal.

    Attributes:
        epoch: Ownership counter; 0 before anybody owned it. Only the holder of the newest epoch can append.
        length: Entries in the journal, so the next one has this sequence number.
        due_at: When an unowned saga wants to be adopted; None: not by itself.
        format: Journal format that a reader of the journal must know.
        cancel: Reason of the first cancel request, seen by the owner or not, until the saga ends; None: no request.
        waits_for: The handler that no worker had for the next attempt; None: none is missing.
    """

    saga_id: str
    tenant_id: str
    workflow_type: str
    status: OperationStatus
    created_at: float
    updated_at: float
    owner: str | None = None
    epoch: int = 0
    length: int = 1
    cursor: int = 0
    size: int = 0
    priority: int = 0
    due_at: float | None = None
    cancel: str | None = None
    idempotency_key: str | None = None
    format: int = JOURNAL_FORMAT
    waits_for: str | None = None


class JournalEntry(msgspec.Struct, frozen=True, gc=False):
    """One append: events that became true together.

    Attributes:
        at: The storage's time, in whole microseconds; higher than that of each entry before.
        epoch: The writer's.
    """

    sequence: int
    at: float
    epoch: int
    entry_id: str
    events: bytes


class SagaNote(msgspec.Struct, frozen=True, gc=False):
    """Something written beside a saga's journal (an audit entry, say); never part of its state."""

    at: float
    entry: msgspec.Raw


class SagaMark(msgspec.Struct, frozen=True, gc=False):
    """A position up to which a reader has a saga.

    Attributes:
        length: Entries of the journal up to the position; at least 1.
        entry_id: Of the newest of these entries.
        at: Time of the newest of these entries.
        notes: Notes up to the position.
        noted_at: Time of the newest of these notes; 0 without notes.
    """

    length: int
    entry_id: str
    at: float
    notes: int = 0
    noted_at: float = 0.0


class SagaRecord(msgspec.Struct, frozen=True, gc=False):
    """A saga as stored: its head, its journal in order, and the notes beside it.

    Attributes:
        journal: Whole; with a snapshot, the first entry, those with results, and those after the snapshot; with
            `after`, the entries after that position.
        notes: All, in the order in which the notes were written; with `after`, the notes after that position.
        after: The position where this part of the saga begins; None: the record begins with the saga.
    """

    meta: SagaMeta
    journal: list[JournalEntry]
    notes: list[SagaNote] = msgspec.field(default_factory=list)
    snapshot: Snapshot | None = None
    after: SagaMark | None = None

    @property
    def mark(self) -> SagaMark:
        """The position at the end of a record that `load_saga` gave."""
        known = SagaMark(0, "", 0.0) if self.after is None else self.after
        entry_id, at = (self.journal[-1].entry_id, self.journal[-1].at) if self.journal else (known.entry_id, known.at)
        noted_at = self.notes[-1].at if self.notes else known.noted_at
        return SagaMark(known.length + len(self.journal), entry_id, at, known.notes + len(self.notes), noted_at)


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """The state of a saga after the first `length` entries of its journal; see `saga.snapshots`.

    Attributes:
        format: Of `state`.
        results: For each step with a result, the entry that holds the result. They are needed besides.
    """

    format: int
    length: int
    results: dict[int, int]
    state: Raw


class NewSaga(msgspec.Struct, frozen=True, gc=False):
    """A saga to be created, with the first entry of its journal.

    Attributes:
        owner: The worker that runs it from this moment (epoch 1); None: nobody yet (epoch 0).
        due_at: When it wants to be adopted, if it has no owner; None: only when somebody asks.
        key: The idempotency key it is started under, created or linked in the same atomic step.
        claim_token: Of the claim that the caller holds on that key; None if it holds none.
        format: Journal format that a reader of the events must know.
    """

    saga_id: str
    tenant_id: str
    workflow_type: str
    status: OperationStatus
    size: int
    entry_id: str
    events: bytes
    cursor: int = 0
    owner: str | None = None
    due_at: float | None = None
    priority: int = 0
    key: NewRecord | None = None
    claim_token: str | None = None
    format: int = JOURNAL_FORMAT


class Creation(msgspec.Struct, frozen=True, gc=False):
    """`created`, or the key was there already: then `record` says for what.

    `meta` is the new saga, or the one that the key belongs to (None where the key's operation is no saga).
    """

    created: bool
    meta: SagaMeta | None
    record: IdempotencyRecord | None = None


class Append(msgspec.Struct, frozen=True, gc=False):
    """One entry for a saga's journal, and what it changes of the saga's head.

    Attributes:
        sequence: The position it is meant for.
        entry_id: The same for each sending of this entry, different for every other entry.
        release: Give up ownership with this entry, as one with a final status does in any case.
        due_at: With `release`, when the saga wants to be adopted again; None: not by itself.
        retention: With a final status, seconds until the saga is forgotten; None: never. An entry that follows
            (of a parked saga that was resumed) ends the retention of the one before.
        completion: Completes the saga's idempotency key in the same atomic step (its token is not looked at).
        unless_cancelled: With a final status: write nothing if a cancel request is stored.
        format: Journal format that a reader of the events must know.
        waits_for: With `release`: the handler that no worker had for the next attempt. Each entry without it ends that.
    """

    saga_id: str
    epoch: int
    sequence: int
    entry_id: str
    events: bytes
    status: OperationStatus
    cursor: int
    release: bool = False
    due_at: float | None = None
    retention: float | None = None
    completion: Completion | None = None
    unless_cancelled: bool = False
    format: int = JOURNAL_FORMAT
    waits_for: str | None = None


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The answer to an append.

    Attributes:
        at: When the entry was written; None: a cancel request forbade it (`Append.unless_cancelled`).
        cancel: Reason of a pending cancel request; None: no request.
    """

    at: float | None
    cancel: str | None


class Adoption(msgspec.Struct, frozen=True, gc=False):
    """A wish to own a saga. It succeeds only if the saga's epoch is still the expected one.

    Attributes:
        expected_length: How many entries its journal must still have, for who decides by what they say: the owner of
            this very epoch may have added some since. None: that does not matter.
        reads: Newest journal format that the worker reads.
        pause: Seconds for which a saga with a newer format is left to other workers.
    """

    saga_id: str
    worker: str
    expected_epoch: int
    entry_id: str
    previous: str | None = None
    expected_length: int | None = None
    reads: int = JOURNAL_FORMAT
    pause: float = 5.0


class AdoptableSaga(msgspec.Struct, frozen=True, gc=False):
    """A saga that waits for an owner."""

    saga_id: str
    epoch: int
    priority: int
    previous: str | None = None


class SagaFilter(msgspec.Struct, frozen=True, gc=False):
    """Which sagas to list; None matches everything. `created_after` is in, `created_before` is not."""

    tenant_id: str | None = None
    status: OperationStatus | None = None
    workflow_type: str | None = None
    created_after: float | None = None
    created_before: float | None = None

    def matches(self, meta: SagaMeta) -> bool:
        """Whether this saga is to be listed."""
        return (
            self.tenant_id in (None, meta.tenant_id)
            and self.status in (None, meta.status)
            and self.workflow_type in (None, meta.workflow_type)
            and (self.created_after is None or meta.created_at >= self.created_after)
            and (self.created_before is None or meta.created_at < self.created_before)
        )


class SagaPage(msgspec.Struct, frozen=True, gc=False):
    """A page of heads, newest first. `cursor` asks for the next one; None: this was the last."""

    sagas: list[SagaMeta]
    cursor: str | None


# --- workers --------------------------------------------------------------------------------------------------


class WorkerRecord(msgspec.Struct, frozen=True, gc=False):
    """One runtime process (one start of it) and its lease."""

    worker_id: str
    started_at: float
    lease_until: float
    info: dict[str, str] = {}


class Renewal(msgspec.Struct, frozen=True, gc=False):
    """The lease goes on. `cancels` are sagas of this worker that somebody asked to cancel since the last time."""

    at: float
    cancels: list[str]


# --- locks ----------------------------------------------------------------------------------------------------


class LockRequest(msgspec.Struct, frozen=True, gc=False):
    """A wish to hold a lock.

    Attributes:
        token: Of this very acquisition: sending the same request again never grants twice.
        lease: Seconds the grant lasts unless extended.
        owner: For people to read.
        wait: Seconds a place in the queue lasts unless asked for again; None: do not queue.
        topic: Where a wake-up is published when the lock may be free for this waiter.
        fences: How many fence values the grant reserves, for holders that follow each other without asking again.
        instead_of: Token of an earlier grant of this name to the same requester, given up in the same step.
    """

    name: str
    token: str
    lease: float
    owner: str
    wait: float | None = None
    topic: str = ""
    fences: int = 1
    instead_of: str | None = None


class LockGrant(msgspec.Struct, frozen=True, gc=False):
    """The lock is held. `until` is the lease's end.

    `fence` is the first of the reserved values; every grant's values are above all those of earlier grants of this
    name, for ever.
    """

    fence: int
    until: float


class LockQueued(msgspec.Struct, frozen=True, gc=False):
    """Not yet: `ahead` waiters come first; ask again after `retry_after` seconds or when woken."""

    ahead: int
    retry_after: float


class LockRecord(msgspec.Struct, frozen=True, gc=False):
    """One lock as it stands. `fence` is the first value of the present grant."""

    name: str
    owner: str
    token: str
    fence: int
    since: float
    until: float
    waiters: int = 0


class LockWaiting(msgspec.Struct, frozen=True, gc=False):
    """Somebody in a lock's queue: who, since when, and how long the place is kept unless asked for again."""

    owner: str
    since: float
    until: float


class LockState(msgspec.Struct, frozen=True, gc=False):
    """A lock (None: it is free), the first of its queue in order, and how many wait in all."""

    held: LockRecord | None
    queue: list[LockWaiting]
    waiters: int


class Purged(msgspec.Struct, frozen=True, gc=False):
    """What retention removed in one go. `more`: the limit was reached and there is more to remove."""

    sagas: int
    records: int
    more: bool
