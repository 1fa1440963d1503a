"""Idempotency records in memory."""

from __future__ import annotations

import heapq
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from ...errors import ClaimLost, IdempotencyKeyNotFound
from ...models import OperationStatus
from ..heads import next_stamp
from ..key_records import (
    DONE,
    GRANTED,
    IN_PROGRESS,
    MISMATCH,
    ClaimVerdict,
    Completion,
    IdempotencyRecord,
    NewRecord,
    RecordHead,
    RecordPage,
)
from ..protocol import record_topic
from .core import MemoryCore, verb

_ENDED = (OperationStatus.COMPLETED, OperationStatus.FAILED)


class MemoryRecords(MemoryCore):
    """One dict, and a heap of what may have expired (checked again before it is removed)."""

    def __init__(self) -> None:
        super().__init__()
        self._records: dict[str, IdempotencyRecord] = {}
        self._record_expiry: list[tuple[float, str]] = []

    @verb
    def create_record(self, new: NewRecord) -> tuple[bool, IdempotencyRecord]:
        """See `RecordStore`."""
        present = self.peek_record(new.key)
        if present is not None:
            return False, present
        return True, self.put_record(replace(self._fresh(new), explicit=True))

    @verb
    def claim_record(self, new: NewRecord, *, token: str, owner: str, lease: float) -> ClaimVerdict:
        """See `RecordStore`."""
        now = self.now()
        record = self.peek_record(new.key) or self._fresh(new)
        if record.fingerprint != new.fingerprint:
            return ClaimVerdict(MISMATCH, record)
        if record.status in _ENDED:
            return ClaimVerdict(DONE, record)
        claimed = record.status is OperationStatus.IN_PROGRESS
        again = claimed and record.token == token
        # A saga's record is not even its starter's: granted again, the operation would run beside the saga.
        if record.saga_id is not None or (claimed and not again and record.lease_until > now):
            return ClaimVerdict(IN_PROGRESS, record)
        record = replace(
            record,
            status=OperationStatus.IN_PROGRESS,
            token=token,
            owner=owner,
            claimed_at=record.claimed_at if again else next_stamp(record.claimed_at, now),
            lease_until=now + lease,
            # Beyond the lease, so that whoever comes after a lost claim finds that there was one.
            expires_at=max(record.expires_at, now + lease + new.ttl),
            claims=record.claims if again else record.claims + 1,
        )
        return ClaimVerdict(GRANTED, self.put_record(record))

    @verb
    def renew_claim(self, key: str, token: str, lease: float) -> float:
        """See `RecordStore`."""
        record = self._held(key, token)
        until = self.now() + lease
        longer = max(until - record.lease_until, 0.0)
        self.put_record(replace(record, lease_until=until, expires_at=record.expires_at + longer))
        return until

    @verb
    def complete_record(self, completion: Completion) -> IdempotencyRecord:
        """See `RecordStore`."""
        record = self.peek_record(completion.key)
        if record is None:
            raise IdempotencyKeyNotFound(f"there is no idempotency key {completion.key!r}, or it has expired")
        if record.status in _ENDED:
            if not _same_ending(record, completion):
                raise ClaimLost(f"the operation under {completion.key!r} has already ended: {record.status}")
            return record
        if record.token != completion.token or record.saga_id is not None:
            raise ClaimLost(f"the claim on {completion.key!r} is held by somebody else, or by nobody")
        return self.end_record(record, completion)

    @verb
    def abandon_claim(self, key: str, token: str) -> None:
        """See `RecordStore`."""
        record = self.peek_record(key)
        if record is None or record.status is OperationStatus.PENDING:
            return
        record = self._held(key, token)
        # That an earlier claim was lost stays known: whoever comes next must not take the work for untouched.
        if record.explicit or record.claims > 1:
            self.put_record(replace(record, status=OperationStatus.PENDING, token=None, owner=None, lease_until=0.0))
        else:
            del self._records[key]
        self.publish(record_topic(key))

    @verb
    def get_record(self, key: str) -> IdempotencyRecord | None:
        """See `RecordStore`."""
        return self.peek_record(key)

    @verb
    def list_records(self, tenant_id: str | None, limit: int, cursor: str | None = None) -> RecordPage:
        """See `RecordStore`."""
        later = sorted(key for key in self._records if cursor is None or key > cursor)
        records = [record for key in later if (record := self.peek_record(key)) is not None]
        found = [record for record in records if tenant_id in (None, record.tenant_id)]
        page = [_head(record) for record in found[:limit]]
        return RecordPage(page, page[-1].key if len(found) > limit else None)

    @verb
    def delete_record(self, key: str) -> None:
        """Forget the record."""
        self._records.pop(key, None)
        self.publish(record_topic(key))

    def peek_record(self, key: str) -> IdempotencyRecord | None:
        """The record unless it has expired."""
        record = self._records.get(key)
        return record if record is not None and record.expires_at > self.now() else None

    def put_record(self, record: IdempotencyRecord) -> IdempotencyRecord:
        """Store it and remember when to forget it."""
        before = self._records.get(record.key)
        self._records[record.key] = record
        known = before is not None and before.expires_at == record.expires_at
        if not known and record.expires_at != float("inf"):
            heapq.heappush(self._record_expiry, (record.expires_at, record.key))
        return record

    def end_record(self, record: IdempotencyRecord, completion: Completion) -> IdempotencyRecord:
        """Store the ending, count the time to live from now, and wake who waits for it."""
        ended = replace(
            record,
            status=completion.status,
            result=_raw(completion.result),
            error=completion.error,
            lease_until=0.0,
            expires_at=self.now() + completion.ttl,
        )
        self.publish(record_topic(record.key))
        return self.put_record(ended)

    def purge_records(self, limit: int) -> int:
        """Remove at most `limit` expired records; gives how many."""
        removed, now = 0, self.now()
        while removed < limit and self._record_expiry and self._record_expiry[0][0] <= now:
            _, key = heapq.heappop(self._record_expiry)
            record = self._records.get(key)
            if record is not None and record.expires_at <= now:
                del self._records[key]
                removed += 1
        return removed

    def _fresh(self, new: NewRecord) -> IdempotencyRecord:
        now = self.now()
        return IdempotencyRecord(
            key=new.key,
            tenant_id=new.tenant_id,
            user_id=new.user_id,
            operation_type=new.operation_type,
            fingerprint=new.fingerprint,
            created_at=now,
            expires_at=now + new.ttl,
            parameters=_raw(new.parameters),
        )

    def _held(self, key: str, token: str) -> IdempotencyRecord:
        record = self.peek_record(key)
        held = record is not None and record.status is OperationStatus.IN_PROGRESS and record.token == token
        # A saga that was started under the claim took it over: giving it back would let a second saga start.
        if record is None or not held or record.saga_id is not None:
            raise ClaimLost(f"the claim on {key!r} is not held any more")
        return record


def _head(record: IdempotencyRecord) -> RecordHead:
    return RecordHead(**{name: getattr(record, name) for name in RecordHead.__struct_fields__})


def _raw(data: bytes | None) -> Raw | None:
    return None if data is None else Raw(data)


def _same_ending(record: IdempotencyRecord, completion: Completion) -> bool:
    ending: tuple[Any, ...] = (completion.status, completion.token, _raw(completion.result), completion.error)
    return (record.status, record.token, record.result, record.error) == ending
