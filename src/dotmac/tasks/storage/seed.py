"""The eight plain methods of a storage, written once on top of the atomic verbs, for every backend."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import msgspec
import trio

from ..bounds import check_encodable, check_record_ttl
from ..errors import EnvironmentFault, InvalidInput, LockLost, SagaNotFound, SagaStateError
from ..idempotency import fingerprint
from ..jsonvalue import check_json, encode
from ..models import OperationStatus
from ..saga.definition import SagaDefinition
from ..saga.events import SagaCreated, encode_events
from ..saga.validation import KnownHandlers, check_definition, parse_steps
from .folding import decode_stored, workflow_of
from .ids import is_saga_id
from .key_records import IdempotencyRecord, NewRecord
from .records import LockGrant, LockRequest, NewSaga

if TYPE_CHECKING:
    from .protocol import LockStore, RecordStore, SagaStore

    class _Verbs(RecordStore, SagaStore, LockStore, Protocol):
        async def delete_record(self, key: str) -> None: ...
        async def add_note(self, saga_id: str, entry: bytes) -> bool: ...


_SIGN_OFF = 1.0  # seconds that one word to the storage may take although its caller was cancelled
_OF_A_KEY = ("tenant_id", "user_id", "operation_type", "parameters")
_OF_A_SAGA = ("tenant_id", "workflow_type", "steps", "timeout_seconds")
_ANY_HANDLER = KnownHandlers(operations=None, compensations=None)


class SeedMethods:
    """Mixed into each backend; needs `delete_record` and `add_note` beside the protocol's verbs."""

    def __init__(self) -> None:
        self._seed_locks: dict[str, str] = {}

    async def set_idempotency(self: Any, key: str, data: dict[str, Any], ttl: float) -> None:
        """Store a record unless the key exists: a record is never reset.

        Args:
            key: The record's name.
            data: JSON document; ``tenant_id`` and ``operation_type`` are required, ``user_id`` and
                ``parameters`` optional.
            ttl: Seconds until the record is forgotten.

        Raises:
            InvalidInput: A required member is missing, there is one more, a value is not JSON, or there is no such
                time to live.
        """
        check_encodable("key", key)
        check_record_ttl("ttl", ttl)
        _check_members(data, _OF_A_KEY)
        check_json(data, "data")
        for name in ("tenant_id", "operation_type"):
            if not isinstance(data.get(name), str):
                raise InvalidInput(f"data.{name}", "is required and must be a string")
        if not isinstance(data.get("user_id"), str | None):
            raise InvalidInput("data.user_id", "must be a string or None")
        user_id, operation, parameters = data.get("user_id"), data["operation_type"], data.get("parameters")
        await self.create_record(
            NewRecord(
                key=key,
                tenant_id=data["tenant_id"],
                user_id=user_id,
                operation_type=operation,
                fingerprint=fingerprint(user_id, operation, parameters),
                parameters=None if parameters is None else encode(parameters),
                ttl=ttl,
            )
        )

    async def get_idempotency(self: _Verbs, key: str) -> dict[str, Any] | None:
        """The record as a document, or None."""
        record = await self.get_record(key)
        return None if record is None else _document(record)

    async def delete_idempotency(self: _Verbs, key: str) -> None:
        """Forget the record; no error if there is none."""
        await self.delete_record(key)

    async def set_saga(self: _Verbs, saga_id: str, data: dict[str, Any]) -> None:
        """Create a pending saga from a document; never overwrites one.

        Args:
            saga_id: Its id, made by `new_saga_id`.
            data: ``tenant_id``, ``workflow_type`` and ``steps`` are required, ``timeout_seconds`` optional.

        Raises:
            InvalidInput: A member is missing, there is one more, one makes no sense, or the id is none.
            SagaStateError: A saga with this id exists.
        """
        if not is_saga_id(saga_id):
            raise InvalidInput("saga_id", f"must come from new_saga_id(), not be {saga_id!r:.80}")
        _check_members(data, _OF_A_SAGA)
        for name in ("tenant_id", "workflow_type", "steps"):
            if name not in data:
                raise InvalidInput(f"data.{name}", "is required")
        definition = SagaDefinition(
            saga_id=saga_id,
            tenant_id=data["tenant_id"],
            workflow_type=data["workflow_type"],
            steps=parse_steps(data["steps"], _ANY_HANDLER),
            timeout_seconds=data.get("timeout_seconds"),
        )
        check_definition(definition)
        if await self.saga_meta(saga_id) is not None:
            raise SagaStateError(f"a saga {saga_id} exists; a saga is never overwritten")
        await self.create_saga(
            NewSaga(
                saga_id=saga_id,
                tenant_id=definition.tenant_id,
                workflow_type=definition.workflow_type,
                status=OperationStatus.PENDING,
                size=len(definition.steps),
                entry_id=uuid4().hex,
                events=encode_events([SagaCreated(definition)]),
            )
        )

    async def get_saga(self: _Verbs, saga_id: str) -> dict[str, Any] | None:
        """The saga as a document (the members of `SagaWorkflow`), or None."""
        record = await self.load_saga(saga_id)
        return None if record is None else asdict(workflow_of(record))

    async def append_saga_history(self: _Verbs, saga_id: str, entry: dict[str, Any]) -> None:
        """Write a note beside the saga's journal, for people to read; it never changes the saga.

        Raises:
            InvalidInput: The entry is not a JSON object.
            SagaNotFound: There is no such saga.
        """
        if type(entry) is not dict:
            raise InvalidInput("entry", "must be a dict of JSON values")
        check_json(entry, "entry")
        if not await self.add_note(saga_id, encode(entry)):
            raise SagaNotFound(f"there is no saga {saga_id}")

    async def acquire_lock(self: Any, key: str, timeout_seconds: float) -> bool:
        """Take the lock for `timeout_seconds` if it is free; False if somebody holds it. Does not wait."""
        token = uuid4().hex
        try:
            granted = await self.request_lock(LockRequest(key, token, timeout_seconds, owner="storage"))
        except BaseException:
            # The answer was lost, or we were cancelled before it came: it may have been granted.
            with trio.move_on_after(_SIGN_OFF, shield=True), suppress(EnvironmentFault):
                await self.free_lock(key, token)
            raise
        if isinstance(granted, LockGrant):
            self._seed_locks[key] = token
        return isinstance(granted, LockGrant)

    async def release_lock(self: Any, key: str) -> None:
        """Free a lock that this storage object acquired.

        Raises:
            LockLost: It does not hold the lock (any more); whoever holds it now keeps it.
        """
        token = self._seed_locks.get(key)
        # Forgotten only after the answer: a call that failed or was cancelled can be made again.
        held = token is not None and await self.free_lock(key, token)
        if self._seed_locks.get(key) == token:
            self._seed_locks.pop(key, None)
        if not held:
            raise LockLost(f"the lock {key!r} is not held here (any more)")


def _check_members(data: Any, known: tuple[str, ...]) -> None:
    if type(data) is not dict:
        raise InvalidInput("data", f"must be a dict, not {type(data).__name__}")
    for name in data:
        if name not in known:  # what is not stored must not look as if it was
            raise InvalidInput(f"data.{name}", f"cannot be set; what can is: {', '.join(known)}")


def _document(record: IdempotencyRecord) -> dict[str, Any]:
    document = {
        name: getattr(record, name)
        for name in record.__struct_fields__
        if name not in {"token", "explicit", "result", "parameters"}
    }
    document["status"] = str(record.status)
    for name in ("result", "parameters"):
        raw: msgspec.Raw | None = getattr(record, name)
        document[name] = None if raw is None else decode_stored(raw, f"the record of idempotency key {record.key!r}")
    return document
