"""Work under a claim: it is done once, and how it ended is stored, whatever happens between the two.

From the moment the work returned, its effect is there. So the ending is stored with the patience that the claim's
lease allows, and a caller who is cancelled meanwhile still waits for one answer: to leave at once would free the key
for a second run.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..errors import EnvironmentFault, InvalidInput
from ..jsonvalue import result_json
from ..metrics import around_attempt, emit
from ..models import OperationStatus
from ..storage.key_records import Completion, IdempotencyRecord
from ..storage.protocol import StorageProtocol
from .claiming import give_back
from .claims import ClaimKeeper, HeldClaim, ScopeHolder
from .context import HandlerContext
from .error_texts import class_of, repr_of, storable, text_of
from .log_fields import attempt_fields
from .permits import Permit
from .unresponsive import RunningHandlers
from .wait_graph import enter_scope, leave_scope

_SIGN_OFF = 1.0  # seconds that one word to the storage may take although its caller was cancelled
_PAUSE = 0.2
_log = logging.getLogger(__name__)

Work = Callable[[HandlerContext], Awaitable[Any]]


class ClaimedWork:
    """One run of an operation whose key is claimed.

    Args:
        storage: Where the key is.
        claim: The claim on it, as it was granted.
        holder: Its holder: the work runs in its scope.
        admit: Waits for the permit of its handler, which is no attempt yet.
        ttl: Seconds the ending is kept.
        max_payload: Bytes of JSON that a result may have.
    """

    def __init__(
        self,
        storage: StorageProtocol,
        claim: HeldClaim,
        holder: ScopeHolder,
        *,
        admit: Callable[[], Awaitable[Permit]],
        ttl: float,
        max_payload: int,
    ) -> None:
        self._storage = storage
        self._admit = admit
        self._claim = claim
        self._scope = holder.scope
        self._ttl = ttl
        self._max_payload = max_payload
        self._over = False

    async def run(
        self, work: Work, context: HandlerContext, keeper: ClaimKeeper, *, store_errors: bool
    ) -> IdempotencyRecord:
        """Do the work and store how it ended.

        Raises:
            ClaimLost: The claim could not be kept: the work was cancelled, or its ending could not be stored in time.
            NotStarted: The runtime is stopping, and the work was not begun.
            InvalidInput: The result cannot be stored; that it cannot is stored as the ending.
            Exception: What the work raised. The key is free again, or with `store_errors` has it as its ending.
        """
        with keeper.working(self._claim):
            try:
                with keeper.holding(self._claim, self._scope):
                    outer = enter_scope(self._scope)
                    try:
                        return await self._do(work, context, keeper.running, store_errors=store_errors)
                    finally:
                        leave_scope(outer)
            finally:
                # It raised, or its caller was cancelled: whoever asks next runs it again, under the same token. A
                # claim that was lost is left alone, so that the next claim counts as a takeover.
                if not (self._over or self._scope.cancel_called):
                    await give_back(self._storage, self._claim.key, self._claim.token)

    async def _do(
        self, work: Work, context: HandlerContext, handlers: RunningHandlers, *, store_errors: bool
    ) -> IdempotencyRecord:
        permit = context._permit = await self._admit()  # noqa: SLF001 - of the runtime
        running = handlers.begin(context, self._scope)
        try:
            with around_attempt(context):
                result = await work(context)
        except Exception as error:
            await self._failed(error, context, store_errors=store_errors)
            raise
        finally:
            handlers.end(running)
            permit.release()
        return await self._store_result(result, context)

    async def _failed(self, error: Exception, context: HandlerContext, *, store_errors: bool) -> None:
        text, extra = repr_of(error), attempt_fields(context)
        emit("idempotency_key_failed", context.operation_type, context.tenant_id, error=text)
        _log.info("operation %s, attempt %d: %s", context.operation_type, context.attempt, text, extra=extra)
        if _log.isEnabledFor(logging.DEBUG):  # the caller gets the error with its traceback
            _log.debug("operation %s: %s", context.operation_type, text, exc_info=error, extra=extra)
        if store_errors:
            await self._store(None, f"{class_of(error)}: {text_of(error)}")

    async def _store_result(self, result: Any, context: HandlerContext) -> IdempotencyRecord:
        self._over = True
        try:
            encoded = result_json(result, self._max_payload)
        except InvalidInput as error:
            emit("idempotency_key_failed", context.operation_type, context.tenant_id, error=repr(error))
            await self._store(None, f"done, but its result cannot be stored: {error}")
            raise
        return await self._store(encoded, None)

    async def _store(self, result: bytes | None, error: str | None) -> IdempotencyRecord:
        """Store the ending, insisting while the claim holds."""
        self._over = True
        status = OperationStatus.COMPLETED if error is None else OperationStatus.FAILED
        text = None if error is None else storable(error)
        completion = Completion(self._claim.key, self._claim.token, status, result, text, self._ttl)
        while True:
            with trio.move_on_after(_SIGN_OFF, shield=True):
                try:
                    return await self._storage.complete_record(completion)
                except EnvironmentFault as problem:
                    _log.warning("the ending of an operation waits for its storage: %s", problem)
            await trio.sleep(_PAUSE)  # here a cancelled caller gets away, and work whose claim is lost
