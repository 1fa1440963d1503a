"""Idempotent operations: one claim, one run, one result for everybody who asks."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from ..bounds import check_encodable, check_record_ttl
from ..bridge.identity import current_caller
from ..errors import (
    ClaimLost,
    IdempotencyInProgress,
    IdempotencyKeyNotFound,
    IdempotencyMismatch,
    InvalidInput,
    UnknownOperation,
)
from ..idempotency import check_request, derive_key, fingerprint, scope_key
from ..jsonvalue import copy_json, result_json
from ..listings import IdempotencyKeyList
from ..metrics import emit
from ..models import IdempotencyKey, OperationStatus
from ..storage.key_records import DONE, IN_PROGRESS, MISMATCH, Completion, IdempotencyRecord, NewRecord
from ..storage.records import fence_at
from .claimed_work import ClaimedWork
from .claiming import ClaimWish, claim_key
from .claims import ClaimKeeper, HeldClaim, ScopeHolder
from .context import HandlerContext
from .environment import SagaEnvironment
from .fresh_ids import fresh_id
from .handlers import Handler
from .inside_handlers import waiting_for_others
from .key_views import key_list, key_view, stored_result
from .pages import check_limit
from .wait_graph import waiting_for


@dataclass(frozen=True, slots=True)
class Operation:
    """One request for an idempotent operation, checked, with its key."""

    new: NewRecord
    parameters: dict[str, Any]


class IdempotentOperations:
    """Idempotent operations as the manager offers them."""

    def __init__(self, environment: SagaEnvironment, claims: ClaimKeeper) -> None:
        self._environment = environment
        self._storage = environment.storage
        self._claims = claims
        self._runners: dict[str, object] = {}  # callers by the key that they run

    def request(
        self, names: tuple[str, str | None, str], parameters: dict[str, Any] | None, key: str | None, ttl: float | None
    ) -> Operation:
        """Check a request and give it its key.

        Args:
            names: Tenant, user and operation type.
            parameters: JSON, or None.
            key: Chosen by the caller; None: derived from everything else.
            ttl: Seconds the record is kept; None: the default.

        Raises:
            InvalidInput: Naming what is wrong.
        """
        tenant_id, user_id, operation_type = names
        check_request(tenant_id, user_id, operation_type, parameters)
        ttl = self._environment.settings.default_ttl if ttl is None else ttl
        check_record_ttl("ttl", ttl)
        new = NewRecord(
            key=derive_key(*names, parameters) if key is None else scope_key(tenant_id, key),
            tenant_id=tenant_id,
            user_id=user_id,
            operation_type=operation_type,
            fingerprint=fingerprint(user_id, operation_type, parameters or {}),
            parameters=None
            if parameters is None
            else result_json(parameters, self._environment.settings.max_payload, "parameters"),
            ttl=ttl,
        )
        return Operation(new, parameters or {})

    # --- step by step ---------------------------------------------------------------------------------------

    async def create(self, operation: Operation) -> IdempotencyKey:
        """Create the key, or give the one that exists, untouched. Raises IdempotencyMismatch."""
        created, record = await self._storage.create_record(operation.new)
        if record.fingerprint != operation.new.fingerprint:
            raise _mismatch()
        emit(f"idempotency_key_{'created' if created else 'hit'}", record.operation_type, record.tenant_id)
        return key_view(record)

    async def check(self, key: str) -> IdempotencyKey | None:
        """The key as it stands, or None if there is none.

        Raises:
            InvalidInput: It cannot be one.
        """
        check_encodable("key", key)
        record = await self._storage.get_record(key)
        return None if record is None else key_view(record)

    async def listed(self, tenant_id: str | None, limit: int, cursor: str | None) -> IdempotencyKeyList:
        """A page of keys."""
        check_limit(limit)
        return key_list(await self._storage.list_records(tenant_id, limit, cursor))

    async def complete(self, key: str, result: Any, error: str | None, token: str | None = None) -> IdempotencyKey:
        """Store how the operation ended; the same ending may be stored again, another one may not.

        Raises:
            InvalidInput: The result is not JSON, or too large.
            IdempotencyKeyNotFound: There is no such key (any more).
            ClaimLost: It is claimed by somebody else, or has ended otherwise.
        """
        if error is not None and not isinstance(error, str):
            raise InvalidInput("error", f"must be a string or None, not {type(error).__name__}")
        stored = result_json(result, self._environment.settings.max_payload)
        check_encodable("key", key)
        before = await self._storage.get_record(key)
        if before is None:
            raise IdempotencyKeyNotFound(f"there is no idempotency key {key!r}, or it has expired")
        if before.saga_id is not None and before.status is OperationStatus.IN_PROGRESS:
            raise ClaimLost(f"the key {key!r} belongs to saga {before.saga_id}, which ends it when it ends")
        record = await self._storage.complete_record(
            Completion(
                key=key,
                token=token,
                status=OperationStatus.COMPLETED if error is None else OperationStatus.FAILED,
                result=stored,
                error=error,
                ttl=before.expires_at - before.created_at if token is None else self._environment.settings.default_ttl,
            )
        )
        self._tell_end(record)
        return key_view(record)

    # --- all at once ----------------------------------------------------------------------------------------

    async def run(self, operation: Operation, *, wait: float | None = None, store_errors: bool = False) -> Any:
        """Run the operation unless it has been run: claim its key, call its handler, store the result.

        Args:
            operation: What to run.
            wait: Seconds to wait for somebody else's run; None: for as long as it takes.
            store_errors: Store an error as the final answer; else the key is free for another try.

        Returns:
            The result, of this run or of the earlier one.

        Raises:
            UnknownOperation: There is no handler.
            IdempotencyMismatch: The key belongs to another request.
            IdempotencyInProgress: Somebody else's run did not end within `wait`.
            OperationFailed: The operation ended with a stored error.
            ClaimLost: The claim could not be kept, so nothing was stored.
            NotStarted: The runtime stops, and the handler was not called.
            WouldDeadlock: The present run waits for the caller.
            Exception: What the handler raised; the key is free for another try.
        """
        handler = self._handler(operation)
        if wait is not None and (isinstance(wait, bool) or not isinstance(wait, int | float) or not wait >= 0):
            raise InvalidInput("wait", f"must be a number of seconds, 0 or more, or None, not {wait!r:.80}")
        with waiting_for_others():
            return await self._run(operation, handler, wait, store_errors=store_errors)

    async def _run(self, operation: Operation, handler: Handler, wait: float | None, *, store_errors: bool) -> Any:
        settings = self._environment.settings
        wish = ClaimWish(operation.new, fresh_id(), "run_idempotent", settings.claim_lease)
        key = operation.new.key
        if wait == 0:
            asked_at, verdict = await claim_key(self._storage, wish, wait=wait)
        else:
            target = f"the run of {operation.new.operation_type!r} under key {key}"
            with waiting_for(target, lambda: self._runners.get(key), bounded=wait is not None):
                asked_at, verdict = await claim_key(self._storage, wish, wait=wait)
        record = verdict.record
        if verdict.outcome == IN_PROGRESS:
            left = max(record.lease_until - self._storage.now(), 0.0)
            raise IdempotencyInProgress("somebody else is running this operation", retry_after=left)
        if verdict.outcome == MISMATCH:
            raise _mismatch()
        if verdict.outcome == DONE:
            emit("idempotency_key_hit", record.operation_type, record.tenant_id)
            return stored_result(record)
        if record.claims == 1 and not record.explicit:
            emit("idempotency_key_created", record.operation_type, record.tenant_id)
        holder = ScopeHolder()
        claim = HeldClaim(record.key, wish.token, wish.lease, holder)
        claim.granted(asked_at)
        claimed = ClaimedWork(
            self._storage,
            claim,
            holder,
            admit=lambda: self._environment.permits.wait(handler.demand, record.key),
            ttl=operation.new.ttl,
            max_payload=settings.max_payload,
        )
        context, parameters = _context(operation, record), copy_json(operation.parameters)
        work = functools.partial(handler.call, parameters)
        self._runners[key] = current_caller()
        try:
            ended = await claimed.run(work, context, self._claims, store_errors=store_errors)
        finally:
            del self._runners[key]
        self._tell_end(ended)
        return stored_result(ended)

    def _handler(self, operation: Operation) -> Handler:
        handler = self._environment.handlers.find(operation.new.operation_type, undo=False)
        if handler is None:
            name = operation.new.operation_type
            raise UnknownOperation("operation_type", f"no handler is registered for {name!r}")
        return handler

    @staticmethod
    def _tell_end(record: IdempotencyRecord) -> None:
        good = record.status is OperationStatus.COMPLETED
        emit(f"idempotency_key_{'completed' if good else 'failed'}", record.operation_type, record.tenant_id)


def _context(operation: Operation, record: IdempotencyRecord) -> HandlerContext:
    return HandlerContext(
        tenant_id=operation.new.tenant_id,
        user_id=operation.new.user_id,
        operation_type=operation.new.operation_type,
        token=record.key,
        attempt=record.claims,
        fence=fence_at(record.claimed_at),
    )


def _mismatch() -> IdempotencyMismatch:
    return IdempotencyMismatch("the idempotency key was used for another request (other user, operation or parameters)")
