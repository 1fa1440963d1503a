"""What goes in and comes out about idempotency keys. Times are Unix seconds of the storage.

Payloads (`result`, `parameters`) are JSON bytes that a storage keeps and never looks into.
"""

from __future__ import annotations

import msgspec

from ..models import OperationStatus


class IdempotencyRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One idempotency key and what is known of its operation.

    Attributes:
        fingerprint: Tells requests under one key apart; equal requests have equal fingerprints.
        token: Of the claim that runs the operation now, or that completed it.
        owner: Who claimed it (a worker id), for people to read.
        claimed_at: Since when, while in progress.
        lease_until: When the claim may be taken over unless it is renewed.
        claims: How often it was claimed; above 1 an earlier claimant was lost.
        explicit: Created by `create_record`, so an abandoned claim always leaves it pending.
        saga_id: The saga that carries the operation out; such a record is never taken over.
    """

    key: str
    tenant_id: str
    user_id: str | None
    operation_type: str
    fingerprint: str
    created_at: float
    expires_at: float
    status: OperationStatus = OperationStatus.PENDING
    parameters: msgspec.Raw | None = None
    result: msgspec.Raw | None = None
    error: str | None = None
    token: str | None = None
    owner: str | None = None
    claimed_at: float = 0.0
    lease_until: float = 0.0
    claims: int = 0
    explicit: bool = False
    saga_id: str | None = None


class RecordHead(msgspec.Struct, frozen=True, gc=False):
    """A record as lists show it: what is known of its key, and nothing of what its operation takes and gives."""

    key: str
    tenant_id: str
    user_id: str | None
    operation_type: str
    status: OperationStatus
    created_at: float
    expires_at: float
    owner: str | None
    claims: int
    saga_id: str | None


class RecordPage(msgspec.Struct, frozen=True, gc=False):
    """A page of records. `cursor` asks for the next one; None: this was the last."""

    records: list[RecordHead]
    cursor: str | None


class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """A key to be created, or claimed where it does not exist. `ttl` is in seconds."""

    key: str
    tenant_id: str
    user_id: str | None
    operation_type: str
    fingerprint: str
    parameters: bytes | None
    ttl: float


class ClaimVerdict(msgspec.Struct, frozen=True, gc=False):
    """What a claim met: ``granted`` (it is yours), ``in_progress``, ``done`` or ``mismatch``."""

    outcome: str
    record: IdempotencyRecord


GRANTED, IN_PROGRESS, DONE, MISMATCH = "granted", "in_progress", "done", "mismatch"


class Completion(msgspec.Struct, frozen=True, gc=False):
    """How the operation under a key ended.

    Attributes:
        token: Of the claim; None completes a key that nobody claimed.
        ttl: Seconds from completion until the record is forgotten.
    """

    key: str
    token: str | None
    status: OperationStatus
    result: bytes | None
    error: str | None
    ttl: float
