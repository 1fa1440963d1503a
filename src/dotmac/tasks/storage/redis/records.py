"""Idempotency records in Redis: one hash each, with the server's own expiry."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import uuid4

from msgspec import Raw

from dotmac.tasks.errors import ClaimLost, IdempotencyKeyNotFound, StoredDataUnreadable
from dotmac.tasks.models import OperationStatus

from ..key_records import ClaimVerdict, Completion, IdempotencyRecord, NewRecord
from ..protocol import record_topic
from ..records import MICROSECONDS
from .commands import Argument
from .core import RedisCore, fields_of, marked, micros, optional, verb
from .script import Script
from .scripts import load

_CREATE, _CLAIM, _RENEW = load("record_create"), load("record_claim"), load("record_renew")
_COMPLETE, _ABANDON, _DELETE = load("record_complete"), load("record_abandon"), load("record_delete")
_STATUSES = {status.value.encode(): status for status in OperationStatus}


class RedisRecords(RedisCore):
    """See `RecordStore`."""

    @verb
    async def create_record(self, new: NewRecord) -> tuple[bool, IdempotencyRecord]:
        """See `RecordStore`."""
        created, flat = await self._run(_CREATE, new.key, [*_head(new), micros(new.ttl), uuid4().hex])
        return bool(created), decode_record(new.key, flat)

    @verb
    async def claim_record(self, new: NewRecord, *, token: str, owner: str, lease: float) -> ClaimVerdict:
        """See `RecordStore`."""
        args = [*_head(new), micros(new.ttl), token, owner, micros(lease)]
        outcome, flat = await self._run(_CLAIM, new.key, args)
        return ClaimVerdict(outcome.decode(), decode_record(new.key, flat))

    @verb
    async def renew_claim(self, key: str, token: str, lease: float) -> float:
        """See `RecordStore`."""
        until: int = await self._run(_RENEW, key, [token, micros(lease)])
        if not until:
            raise ClaimLost(f"the claim on {key!r} is not held any more")
        return until / MICROSECONDS

    @verb
    async def complete_record(self, completion: Completion) -> IdempotencyRecord:
        """See `RecordStore`."""
        key = completion.key
        args: list[Argument] = [
            optional(completion.token),
            str(completion.status),
            optional(completion.result),
            marked(completion.error),
            micros(completion.ttl),
            self.layout.channel(record_topic(key)),
        ]
        reply = await self._run(_COMPLETE, key, args)
        if reply[0] == b"gone":
            raise IdempotencyKeyNotFound(f"there is no idempotency key {key!r}, or it has expired")
        if reply[0] == b"ended":
            raise ClaimLost(f"the operation under {key!r} has already ended: {reply[1].decode()}")
        if reply[0] == b"lost":
            raise ClaimLost(f"the claim on {key!r} is held by somebody else, or by nobody")
        return decode_record(key, reply[1])

    @verb
    async def abandon_claim(self, key: str, token: str) -> None:
        """See `RecordStore`."""
        args: list[Argument] = [token, self.layout.channel(record_topic(key))]
        if not await self._run(_ABANDON, key, args):
            raise ClaimLost(f"the claim on {key!r} is not held any more")

    @verb
    async def get_record(self, key: str) -> IdempotencyRecord | None:
        """See `RecordStore`."""
        name = self._record_key(key)
        found: dict[bytes, bytes] = await self.client.execute("HGETALL", name, key=name, repeatable=True)
        return decode_fields(key, found) if found else None

    @verb
    async def delete_record(self, key: str) -> None:
        """Forget the record."""
        name = self._record_key(key)
        made_at: bytes | None = await self.client.execute("HGET", name, "ca", key=name, repeatable=True)
        if made_at is not None:  # told apart by it from a record that is made before a lost reply is asked for again
            await self._run(_DELETE, key, [made_at, self.layout.channel(record_topic(key))])

    def _run(self, script: Script, key: str, args: Sequence[Argument]) -> Coroutine[Any, Any, Any]:
        partition = self.layout.of_key(key)
        return self.client.run(script, [partition.record(key)], args, slot=partition.slot)

    def _record_key(self, key: str) -> bytes:
        return self.layout.of_key(key).record(key)


def decode_record(key: str, flat: list[bytes]) -> IdempotencyRecord:
    """A record from what a script returned."""
    return decode_fields(key, fields_of(flat))


def decode_fields(key: str, found: dict[bytes, bytes]) -> IdempotencyRecord:
    """A record from its hash. Raises StoredDataUnreadable."""
    try:
        return _decoded(key, found)
    except (KeyError, ValueError) as error:
        raise StoredDataUnreadable(f"the record of idempotency key {key!r} cannot be read: {error!r}") from error


def _decoded(key: str, found: dict[bytes, bytes]) -> IdempotencyRecord:
    get = found.get
    user, error, token, owner, saga = get(b"u"), get(b"er"), get(b"tok"), get(b"own"), get(b"sid")
    parameters, result = get(b"pa"), get(b"re")
    return IdempotencyRecord(
        key=key,
        tenant_id=found[b"t"].decode(),
        user_id=None if user is None else user.decode(),
        operation_type=found[b"op"].decode(),
        fingerprint=found[b"fp"].decode(),
        created_at=float(get(b"ca", b"0")) / MICROSECONDS,
        expires_at=float(get(b"ex", b"0")) / MICROSECONDS,
        status=_STATUSES[found[b"st"]],
        parameters=None if parameters is None else Raw(parameters),
        result=None if result is None else Raw(result),
        error=None if error is None else error.decode(),
        token=None if token is None else token.decode(),
        owner=None if owner is None else owner.decode(),
        claimed_at=float(get(b"cl", b"0")) / MICROSECONDS,
        lease_until=float(get(b"lu", b"0")) / MICROSECONDS,
        claims=int(get(b"n", b"0")),
        explicit=b"xp" in found,
        saga_id=None if saga is None else saga.decode(),
    )


def _head(new: NewRecord) -> list[bytes | str]:
    return [new.tenant_id, optional(new.user_id), new.operation_type, new.fingerprint, optional(new.parameters)]
