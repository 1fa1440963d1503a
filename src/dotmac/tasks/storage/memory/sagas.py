"""Sagas in memory: a head and a journal each, fenced by the epoch."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field

from msgspec import Raw
from msgspec.structs import replace

from ...errors import JournalConflict, OwnershipLost, SagaNotFound, SagaStateError
from ...models import OperationStatus
from ...saga.events import SagaAdopted, encode_events
from ...saga.snapshots import SNAPSHOT_FORMAT
from ..heads import first_head, next_stamp, too_new
from ..ids import make_saga_id
from ..key_records import IdempotencyRecord
from ..protocol import ANNOUNCED_AHEAD, DUE_TOPIC, saga_topic, worker_topic
from ..records import (
    MICROSECONDS,
    SAGA_STATUSES,
    AdoptableSaga,
    Adoption,
    Append,
    Appended,
    Creation,
    JournalEntry,
    NewSaga,
    Purged,
    SagaFilter,
    SagaMark,
    SagaMeta,
    SagaNote,
    SagaPage,
    SagaRecord,
    Snapshot,
)
from .core import verb
from .records import MemoryRecords
from .workers import MemoryWorkers


@dataclass(slots=True)
class _Saga:
    meta: SagaMeta
    journal: list[JournalEntry]
    notes: list[SagaNote] = field(default_factory=list)
    expires_at: float | None = None
    snapshot: Snapshot | None = None

    def contains(self, mark: SagaMark) -> bool:
        """Whether the saga has the entry and the note at this position."""
        if mark.length > len(self.journal) or mark.notes > len(self.notes):
            return False
        newest = self.journal[mark.length - 1]
        noted_at = self.notes[mark.notes - 1].at if mark.notes else 0.0
        return (newest.entry_id, newest.at, noted_at) == (mark.entry_id, mark.at, mark.noted_at)


class MemorySagas(MemoryRecords, MemoryWorkers):
    """Sagas by id in order of creation, those that wait for an owner, and when to forget the ended ones."""

    def __init__(self) -> None:
        super().__init__()
        self._sagas: dict[str, _Saga] = {}
        self._due: dict[str, float] = {}
        self._saga_expiry: list[tuple[float, str]] = []

    def new_saga_id(self, key: str | None = None) -> str:
        """See `SagaStore`."""
        return make_saga_id(self.now(), 0)

    @verb
    def create_saga(self, new: NewSaga) -> Creation:
        """See `SagaStore`."""
        known = self._sagas.get(new.saga_id)
        if known is not None:
            if known.journal[0].entry_id != new.entry_id:
                raise SagaStateError(f"a saga {new.saga_id} exists")
            return Creation(True, known.meta)
        if new.key is not None:
            refused = self._link_key(new)
            if refused is not None:
                return refused
        meta = first_head(new, self.now(), new.due_at)
        entry = JournalEntry(0, meta.created_at, meta.epoch, new.entry_id, new.events)
        self._sagas[new.saga_id] = _Saga(meta, [entry])
        if new.owner is not None:
            self.own(new.owner, new.saga_id)
        self._set_due(new.saga_id, meta.due_at)
        return Creation(True, meta)

    @verb
    def append(self, entry: Append) -> Appended:
        """See `SagaStore`."""
        saga = self._saga(entry.saga_id)
        meta = saga.meta
        if (entry.release or entry.status.is_final) and meta.epoch != entry.epoch:
            # An entry that gives the saga up may be there, and the saga have found another owner since.
            written = saga.journal[entry.sequence] if entry.sequence < meta.length else None
            if written is not None and written.entry_id == entry.entry_id:
                return Appended(written.at, None)
        self._owned_saga(entry.saga_id, entry.epoch)
        if entry.sequence < meta.length:
            written = saga.journal[entry.sequence]
            if written.entry_id == entry.entry_id:
                return Appended(written.at, meta.cancel)
            raise JournalConflict(f"saga {entry.saga_id} has another entry at {entry.sequence}")
        if entry.sequence > meta.length or meta.owner is None:
            raise JournalConflict(f"saga {entry.saga_id} has {meta.length} entries and owner {meta.owner}: {entry}")
        if entry.unless_cancelled and meta.cancel is not None:
            return Appended(None, meta.cancel)
        now, final = self.now(), entry.status.is_final
        leaves = final or entry.release
        due_at = None if final or not entry.release else self._due_after(meta, entry.due_at)
        at = next_stamp(meta.updated_at, now)
        saga.journal.append(JournalEntry(meta.length, at, entry.epoch, entry.entry_id, entry.events))
        saga.meta = replace(
            meta,
            status=entry.status,
            updated_at=at,
            length=meta.length + 1,
            cursor=entry.cursor,
            owner=None if leaves else meta.owner,
            due_at=due_at,
            cancel=None if final else meta.cancel,
            format=max(meta.format, entry.format),
            waits_for=entry.waits_for,
        )
        saga.expires_at = now + entry.retention if final and entry.retention is not None else None
        if leaves:
            self.disown(meta.owner, entry.saga_id)
            self._set_due(entry.saga_id, due_at)
        if final:
            self._end(saga, entry)
        return Appended(at, saga.meta.cancel)

    @verb
    def adopt_saga(self, adoption: Adoption) -> SagaRecord:
        """See `SagaStore`."""
        saga = self._saga(adoption.saga_id)
        meta = saga.meta
        if meta.epoch == adoption.expected_epoch and adoption.expected_length in (None, meta.length):
            if meta.format > adoption.reads:
                self._leave(saga, adoption.pause)
                raise too_new(adoption.saga_id, meta.format, adoption.reads)
            at, epoch = next_stamp(meta.updated_at, self.now()), meta.epoch + 1
            event = SagaAdopted(adoption.worker, epoch, adoption.previous)
            entry = JournalEntry(meta.length, at, epoch, adoption.entry_id, encode_events([event]))
            saga.journal.append(entry)
            self.disown(meta.owner, meta.saga_id)
            self.own(adoption.worker, meta.saga_id)
            self._set_due(meta.saga_id, None)
            saga.meta = replace(
                meta, owner=adoption.worker, epoch=epoch, length=meta.length + 1, updated_at=at, due_at=None
            )
        elif saga.journal[-1].entry_id != adoption.entry_id:
            raise OwnershipLost(f"saga {adoption.saga_id} has epoch {meta.epoch}, owner {meta.owner}")
        snapshot = saga.snapshot
        if snapshot is None or snapshot.format != SNAPSHOT_FORMAT:
            return SagaRecord(saga.meta, list(saga.journal))
        positions = sorted({0, *snapshot.results.values(), *range(snapshot.length, saga.meta.length)})
        return SagaRecord(saga.meta, [saga.journal[at] for at in positions], snapshot=snapshot)

    def _leave(self, saga: _Saga, pause: float) -> None:
        """Leave a saga to workers that read newer journals; one that waits to be asked for stays as it is."""
        meta = saga.meta
        if meta.owner is None and meta.due_at is None:
            return
        self.disown(meta.owner, meta.saga_id)
        # A lost owner may still write: the new epoch tells it that the saga is another's.
        epoch, due_at = meta.epoch if meta.owner is None else meta.epoch + 1, self.now() + pause
        saga.meta = replace(meta, owner=None, epoch=epoch, due_at=due_at)
        self._set_due(meta.saga_id, due_at)

    @verb
    def keep_snapshot(self, saga_id: str, epoch: int, snapshot: Snapshot) -> None:
        """See `SagaStore`."""
        saga = self._sagas.get(saga_id)
        if saga is not None and saga.meta.epoch == epoch and saga.meta.owner is not None:
            saga.snapshot = snapshot

    @verb
    def release_saga(self, saga_id: str, epoch: int, due_at: float | None) -> None:
        """See `SagaStore`."""
        saga = self._owned_saga(saga_id, epoch)
        if saga.meta.owner is None:
            return  # sent again: what was asked of the saga in the meantime (a cancel made it due, say) stays
        due_at = self._due_after(saga.meta, due_at)
        self.disown(saga.meta.owner, saga_id)
        saga.meta = replace(saga.meta, owner=None, due_at=due_at)
        self._set_due(saga_id, due_at)

    @verb
    def due_sagas(self, limit: int, *, max_age: float = 0.0) -> list[AdoptableSaga]:
        """See `SagaStore`."""
        now = self.now()
        return self._adoptable([saga_id for saga_id, due_at in self._due.items() if due_at <= now], limit)

    @verb
    def missing_handlers(self) -> dict[str, int]:
        """See `SagaStore`."""
        heads = (saga.meta for saga in self._sagas.values())
        return dict(Counter(meta.waits_for for meta in heads if meta.waits_for is not None))

    @verb
    def waiting_sagas(self, waits_for: str, limit: int) -> list[AdoptableSaga]:
        """See `SagaStore`."""
        heads = (saga.meta for saga in self._sagas.values())
        ids = [meta.saga_id for meta in heads if meta.waits_for == waits_for and meta.owner is None]
        return self._adoptable(ids, limit)

    @verb
    def orphaned_sagas(self, worker_id: str, limit: int) -> list[AdoptableSaga]:
        """See `SagaStore`."""
        return self._adoptable(self.owned_by(worker_id), limit)

    @verb
    def request_cancel(self, saga_id: str, reason: str) -> SagaMeta:
        """See `SagaStore`."""
        saga = self._saga(saga_id)
        if saga.meta.status.is_final:
            return saga.meta
        if saga.meta.cancel is None:
            saga.meta = replace(saga.meta, cancel=reason)
        if saga.meta.owner is not None:
            self.note_cancel(saga.meta.owner, saga_id)
            self.publish(worker_topic(saga.meta.owner))
        else:
            due_at = self.now() if saga.meta.due_at is None else min(saga.meta.due_at, self.now())
            saga.meta = replace(saga.meta, due_at=due_at)
            self._set_due(saga_id, due_at)
        return saga.meta

    @verb
    def load_saga(self, saga_id: str, after: SagaMark | None = None) -> SagaRecord | None:
        """See `SagaStore`."""
        saga = self._sagas.get(saga_id)
        if saga is None:
            return None
        if after is None or not saga.contains(after):
            return SagaRecord(saga.meta, list(saga.journal), list(saga.notes))
        return SagaRecord(saga.meta, saga.journal[after.length :], saga.notes[after.notes :], after=after)

    @verb
    def saga_meta(self, saga_id: str) -> SagaMeta | None:
        """See `SagaStore`."""
        saga = self._sagas.get(saga_id)
        return None if saga is None else saga.meta

    @verb
    def count_sagas(self) -> dict[OperationStatus, int]:
        """See `SagaStore`."""
        counted = Counter(saga.meta.status for saga in self._sagas.values())
        return {status: counted[status] for status in SAGA_STATUSES}

    @verb
    def list_sagas(self, where: SagaFilter, limit: int, cursor: str | None = None) -> SagaPage:
        """See `SagaStore`."""
        ids = sorted((i for i in self._sagas if cursor is None or i < cursor), reverse=True)
        metas = [saga.meta for saga in map(self._sagas.__getitem__, ids) if where.matches(saga.meta)]
        page = metas[:limit]
        return SagaPage(page, page[-1].saga_id if len(metas) > limit else None)

    @verb
    def add_note(self, saga_id: str, entry: bytes) -> bool:
        """Write a note beside the journal; False if there is no such saga."""
        saga = self._sagas.get(saga_id)
        if saga is not None:
            newest = saga.notes[-1].at if saga.notes else 0.0
            # Not older than the entries that are there, and later than each earlier note.
            at = next_stamp(max(newest, saga.meta.updated_at - 1 / MICROSECONDS), self.now())
            saga.notes.append(SagaNote(at, Raw(entry)))
        return saga is not None

    @verb
    def purge(self, limit: int) -> Purged:
        """See `StorageProtocol`."""
        sagas, records = self._purge_sagas(limit), self.purge_records(limit)
        return Purged(sagas, records, more=limit in (sagas, records))

    def _purge_sagas(self, limit: int) -> int:
        removed, now, owned = 0, self.now(), []
        while removed < limit and self._saga_expiry and self._saga_expiry[0][0] <= now:
            expires_at, saga_id = heapq.heappop(self._saga_expiry)
            saga = self._sagas.get(saga_id)
            if saga is None or saga.expires_at != expires_at:
                continue  # gone, or it went on since and has another end, or none yet
            if saga.meta.owner is not None:
                owned.append((expires_at, saga_id))  # an operator resumes it in this moment
                continue
            del self._sagas[saga_id]
            removed += 1
        for expiry in owned:
            heapq.heappush(self._saga_expiry, expiry)
        return removed

    def _link_key(self, new: NewSaga) -> Creation | None:
        """Tie the saga to its key; what stands in the way, if something does."""
        wanted = new.key
        assert wanted is not None  # noqa: S101 - narrows the type; the caller checked
        record = self.peek_record(wanted.key) or self._fresh(wanted)
        claimed = record.status is OperationStatus.IN_PROGRESS
        ours = claimed and record.saga_id is None and record.token == new.claim_token is not None
        open_to_all = record.status is OperationStatus.PENDING and record.fingerprint == wanted.fingerprint
        if not (ours or open_to_all):
            saga = self._sagas.get(record.saga_id or "")
            return Creation(False, None if saga is None else saga.meta, record)
        self.put_record(self._linked(record, new.saga_id))
        return None

    def _linked(self, record: IdempotencyRecord, saga_id: str) -> IdempotencyRecord:
        # It lives as long as the saga is open: a parked saga must not be started a second time tomorrow.
        return replace(record, status=OperationStatus.IN_PROGRESS, saga_id=saga_id, expires_at=float("inf"))

    def _end(self, saga: _Saga, entry: Append) -> None:
        saga_id = saga.meta.saga_id
        self.publish(saga_topic(saga_id))
        if saga.expires_at is not None:
            heapq.heappush(self._saga_expiry, (saga.expires_at, saga_id))
        if entry.completion is not None:
            record = self.peek_record(entry.completion.key)
            if record is not None and record.saga_id == saga_id:
                self.end_record(record, entry.completion)

    def _due_after(self, meta: SagaMeta, due_at: float | None) -> float | None:
        # The owner may give the saga up without having seen a request that came under this ownership.
        asked = meta.owner is not None and self.cancel_noted(meta.owner, meta.saga_id)
        return self.now() if asked else due_at

    def _saga(self, saga_id: str) -> _Saga:
        saga = self._sagas.get(saga_id)
        if saga is None:
            raise SagaNotFound(f"there is no saga {saga_id!r}, or its retention is over")
        return saga

    def _owned_saga(self, saga_id: str, epoch: int) -> _Saga:
        saga = self._saga(saga_id)
        if saga.meta.epoch != epoch:
            raise OwnershipLost(f"saga {saga_id} has epoch {saga.meta.epoch}, owner {saga.meta.owner}; ours is {epoch}")
        return saga

    def _set_due(self, saga_id: str, due_at: float | None) -> None:
        if due_at is None:
            self._due.pop(saga_id, None)
            return
        self._due[saga_id] = due_at
        if due_at <= self.now() + ANNOUNCED_AHEAD:
            self.publish(DUE_TOPIC)

    def _adoptable(self, saga_ids: list[str] | frozenset[str], limit: int) -> list[AdoptableSaga]:
        metas = sorted((self._sagas[i].meta for i in saga_ids), key=lambda meta: (-meta.priority, meta.saga_id))
        return [AdoptableSaga(m.saga_id, m.epoch, m.priority, m.owner) for m in metas[:limit]]
