"""Claims for work that runs elsewhere: an HTTP request, say, in an event loop of its own.

The work is not done here, so nothing here can see how it ends. Whoever does it begins a claim, is told when the claim
cannot be kept (see `ClaimHolder`), and ends it in one of four ways: with an answer that is stored for ever, as
unknown, given back because nothing was done, or handed over to a saga that carries the operation out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from ..errors import ClaimLost, EnvironmentFault, IdempotencyMismatch, StorageUnavailable
from ..metrics import emit
from ..models import OperationStatus
from ..storage.key_records import DONE, GRANTED, ClaimVerdict, Completion, NewRecord
from ..storage.protocol import StorageProtocol
from .background import BackgroundTasks
from .claiming import ClaimWish, claim_key, give_back
from .claims import ClaimHolder, ClaimKeeper, HeldClaim
from .fresh_ids import fresh_id
from .saga_service import SagaService

_PAUSE = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestClaim:
    """A claim that was granted, on its way to one of its endings."""

    new: NewRecord
    held: HeldClaim


class RequestClaims:
    """Claims whose work is done by their holders."""

    def __init__(
        self, storage: StorageProtocol, keeper: ClaimKeeper, sagas: SagaService, background: BackgroundTasks
    ) -> None:
        self._storage = storage
        self._keeper = keeper
        self._sagas = sagas
        self._background = background

    async def begin(
        self, new: NewRecord, holder: ClaimHolder, *, owner: str, lease: float, wait: float
    ) -> tuple[ClaimVerdict, RequestClaim | None]:
        """Claim a key; the claim is kept alive until it is ended.

        Args:
            new: The key and the request under it.
            holder: Is told until when the claim is certain, and when it is lost.
            owner: For people to read.
            lease: Seconds a claim lasts by itself.
            wait: Seconds to wait for another claim to end.

        Returns:
            What was met, and the claim if it was granted.
        """
        wish = ClaimWish(new, fresh_id(), owner, lease)
        asked_at, verdict = await claim_key(self._storage, wish, wait=wait)
        if verdict.outcome == DONE:
            emit("idempotency_key_hit", new.operation_type, new.tenant_id)
        if verdict.outcome != GRANTED:
            return verdict, None
        if verdict.record.claims == 1:
            emit("idempotency_key_created", new.operation_type, new.tenant_id)
        claim = RequestClaim(new, HeldClaim(new.key, wish.token, lease, holder))
        claim.held.granted(asked_at)
        self._keeper.keep(claim.held)
        return verdict, claim

    async def finish(self, claim: RequestClaim, result: bytes | None, error: str | None, *, patience: float) -> None:
        """Store how the operation ended, insisting for a while where the storage is away.

        Args:
            claim: Ended by this, unless it raises StorageUnavailable.
            result: JSON.
            error: Why it failed; None: it did not.
            patience: Seconds to insist.

        Raises:
            ClaimLost: The claim is another's by now; nothing was stored.
            StorageUnavailable: Nothing is known to be stored. The claim is still kept alive: ask again.
        """
        deadline = trio.current_time() + patience
        status = OperationStatus.COMPLETED if error is None else OperationStatus.FAILED
        completion = Completion(claim.new.key, claim.held.token, status, result, error, claim.new.ttl)
        try:
            while True:
                try:
                    await self._storage.complete_record(completion)
                    break
                except EnvironmentFault as problem:
                    await self._pause(problem, deadline)
        except StorageUnavailable:
            raise
        except BaseException:  # also who is cancelled between two tries asks no more
            self._keeper.drop(claim.held)
            raise
        self._keeper.drop(claim.held)
        point = "idempotency_key_completed" if error is None else "idempotency_key_failed"
        emit(point, claim.new.operation_type, claim.new.tenant_id)

    def finish_later(self, claim: RequestClaim, result: bytes | None, error: str | None, *, patience: float) -> None:
        """Store how the operation ended as soon as the storage allows it, in a task of the runtime.

        The runtime's stop waits for the task as it waits for operations.

        Args:
            claim: Ended by this; without an answer of the storage within `patience` it runs out.
            result: JSON.
            error: Why it failed; None: it did not.
            patience: Seconds to insist.
        """
        self._background.start(partial(self._insist, claim, result, error, patience))

    async def _insist(self, claim: RequestClaim, result: bytes | None, error: str | None, patience: float) -> None:
        with self._keeper.working(claim.held):
            try:
                await self.finish(claim, result, error, patience=patience)
            except ClaimLost as lost:
                _log.warning("a request ended after its claim was lost, so its ending is not stored: %s", lost)
            except StorageUnavailable as problem:
                _log.error("the ending of a request is not stored: %s", problem)
                await self.leave(claim)

    async def _pause(self, problem: EnvironmentFault, deadline: float) -> None:
        """Wait before an ending is stored again. Raises StorageUnavailable if there is no time left for that."""
        _log.warning("the ending of a request waits for its storage: %s", problem)
        if trio.current_time() + _PAUSE >= deadline:
            raise StorageUnavailable(f"the ending of a request could not be stored: {problem}") from problem
        await trio.sleep(_PAUSE)  # nobody tells when it is back

    async def abandon(self, claim: RequestClaim) -> None:
        """Give the key back: nothing was done."""
        self._keeper.drop(claim.held)
        await give_back(self._storage, claim.new.key, claim.held.token)

    async def leave(self, claim: RequestClaim) -> None:
        """Let the claim run out by itself: what was done under it is not known, and cannot be written down."""
        self._keeper.drop(claim.held)

    async def start_saga(self, claim: RequestClaim, fields: Mapping[str, Any], steps: Any) -> str:
        """Start the saga that carries the operation out; from then on the key is the saga's. Gives its id.

        Args:
            claim: Ended by this, unless nothing was stored.
            fields: Of the definition, but for its steps.
            steps: As `start_saga` of the manager takes them.

        Raises:
            InvalidInput: Nothing was stored, the claim is kept.
            StorageRefused: The same.
            StorageUnavailable: The saga may have been created; if it was, it runs, and the key is its own.
            ClaimLost: The claim is another's by now.
        """
        definition = self._sagas.define(fields, steps, record_key=claim.new.key)
        self._keeper.drop(claim.held)  # not renewed while the saga takes it over: that would look like a loss
        try:
            saga_id = await self._sagas.start(definition, claim=(claim.new, claim.held.token))
        except IdempotencyMismatch as error:
            raise ClaimLost("the key was claimed by somebody else before the saga could be started") from error
        except BaseException:
            self._keeper.keep(claim.held)
            raise
        if saga_id != definition.saga_id:
            raise ClaimLost(f"the key stands for saga {saga_id}, which was started by somebody else")
        return saga_id
