"""How an idempotency record looks to its users: as a key, and as the result of its operation."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from ..errors import OperationFailed
from ..listings import IdempotencyKeyList, IdempotencyKeySummary
from ..models import IdempotencyKey, OperationStatus
from ..saga.views import utc
from ..storage.folding import decode_stored
from ..storage.key_records import IdempotencyRecord, RecordHead, RecordPage

_FOREVER = 253_402_300_799.0  # the last second a datetime can hold: a record that ends with its saga has no end yet


def key_view(record: IdempotencyRecord) -> IdempotencyKey:
    """The record as its users see it."""
    return IdempotencyKey(
        key=record.key,
        tenant_id=record.tenant_id,
        user_id=record.user_id,
        operation_type=record.operation_type,
        created_at=utc(record.created_at),
        expires_at=utc(min(record.expires_at, _FOREVER)),
        status=record.status,
        result=_value(record.result, record.key),
        error=record.error,
        parameters=_value(record.parameters, record.key),
    )


def key_list(page: RecordPage) -> IdempotencyKeyList:
    """A page of records as its users see it."""
    return IdempotencyKeyList([_summary(head) for head in page.records], page.cursor)


def _summary(head: RecordHead) -> IdempotencyKeySummary:
    return IdempotencyKeySummary(
        key=head.key,
        tenant_id=head.tenant_id,
        user_id=head.user_id,
        operation_type=head.operation_type,
        status=head.status,
        created_at=utc(head.created_at),
        expires_at=utc(min(head.expires_at, _FOREVER)),
        claims=head.claims,
        owner=head.owner,
        saga_id=head.saga_id,
    )


def stored_result(record: IdempotencyRecord) -> Any:
    """The result of an operation that has ended. Raises OperationFailed."""
    if record.status is OperationStatus.FAILED:
        raise OperationFailed(record.error or "the operation failed")
    return _value(record.result, record.key)


def _value(data: Raw | None, key: str) -> Any:
    return None if data is None else decode_stored(data, f"the record of idempotency key {key!r}")
