"""Claims on idempotency keys whose work the caller does himself, in whichever event loop: what the middleware uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, cast

import msgspec
import trio

from ..bridge.bridged import bridged, on_abandoned
from ..handle import SagaHandle
from ..models import OperationStatus
from ..runtime.claims import ClaimHolder
from ..runtime.request_claims import RequestClaim
from ..storage.key_records import NewRecord
from .life import Lifecycle

ClaimOutcome = Literal["granted", "in_progress", "done", "mismatch"]


class ClaimKeptBy(Protocol):
    """Whoever works under a claim; called in the event loop in which the work is done."""

    def granted_for(self, seconds: float) -> None:
        """The claim is certain for so long from now on; stop then, unless told again before."""

    def lose(self) -> None:
        """Stop now: the claim is another's."""


class KeyedRequest(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request under an idempotency key.

    Attributes:
        record_key: The record's key, with everything in it that keeps callers apart.
        operation_type: For people to read.
        fingerprint: What must be equal for another request under this key to be the same request.
        ttl: Seconds the record is kept, counted anew from its ending.
        lease: Seconds after which others may claim the key if this process dies.
    """

    record_key: str
    tenant_id: str
    user_id: str | None
    operation_type: str
    fingerprint: str
    ttl: float
    lease: float


class ClaimAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request under a key met.

    Attributes:
        outcome: ``granted``: do the work, and end the claim; ``in_progress``: somebody else does it; ``done``: it
            was done; ``mismatch``: the key was used for another request.
        claim: To end it with, if it was granted.
        lapsed: Whether an earlier claim ran out, so that nobody knows what was done under it.
        fingerprint: Of the record.
        status: Of the record.
        result: JSON that was stored with the ending.
        error: Why it failed, if it did.
        saga_id: The saga that carries the operation out.
        retry_after: Seconds until the present claim ends unless it is renewed.
    """

    outcome: ClaimOutcome
    claim: RequestClaim | None
    lapsed: bool
    fingerprint: str
    status: OperationStatus
    result: bytes | None
    error: str | None
    saga_id: str | None
    retry_after: float


class ClaimMethods(Lifecycle):
    """Begin a claim, then end it in one of four ways."""

    async def begin_claim(
        self, request: KeyedRequest, holder: ClaimKeptBy, *, owner: str = "", wait: float = 0.0
    ) -> ClaimAnswer:
        """Claim a key for work that the caller does himself; a claim that is granted is kept alive until it is ended.

        Args:
            request: What is asked, and under which key.
            holder: Is told for how long the claim is certain, and when it is lost.
            owner: Who does the work, for people to read.
            wait: Seconds to wait for somebody else's work to end.
        """
        home = self._home
        relay = _Relay(holder) if home.is_here else _RelayAbroad(holder, home.side().post)
        return await self._begin_claim(request, relay, owner, wait)

    async def _unclaim(self, answer: ClaimAnswer, *_arguments: object) -> None:
        """A claim was granted to a caller who is gone."""
        if answer.claim is not None:
            await self._hosted().requests.abandon(answer.claim)

    @on_abandoned(_unclaim)
    async def _begin_claim(self, request: KeyedRequest, relay: ClaimHolder, owner: str, wait: float) -> ClaimAnswer:
        hosted = self._hosted()
        new = NewRecord(
            key=request.record_key,
            tenant_id=request.tenant_id,
            user_id=request.user_id,
            operation_type=request.operation_type,
            fingerprint=request.fingerprint,
            parameters=None,
            ttl=request.ttl,
        )
        verdict, claim = await hosted.requests.begin(new, relay, owner=owner, lease=request.lease, wait=wait)
        record = verdict.record
        return ClaimAnswer(
            outcome=cast("ClaimOutcome", verdict.outcome),
            claim=claim,
            lapsed=record.claims > 1,
            fingerprint=record.fingerprint,
            status=record.status,
            result=None if record.result is None else bytes(record.result),
            error=record.error,
            saga_id=record.saga_id,
            retry_after=max(record.lease_until - self._environment.storage.now(), 0.0),
        )

    @bridged
    async def finish_claim(
        self, claim: RequestClaim, result: bytes | None, error: str | None = None, *, patience: float = 5.0
    ) -> None:
        """Store how the work ended.

        Args:
            claim: Ended by this, unless StorageUnavailable is raised.
            result: JSON.
            error: Why it failed; None: it did not.
            patience: Seconds to insist where the storage is away.

        Raises:
            ClaimLost: The claim is another's by now; nothing was stored.
            StorageUnavailable: The storage stayed away; the claim is still kept alive.
        """
        await self._hosted().requests.finish(claim, result, error, patience=patience)

    @bridged
    async def finish_claim_later(
        self, claim: RequestClaim, result: bytes | None, error: str | None = None, *, patience: float
    ) -> None:
        """Store how the work ended as soon as the storage allows it; returns before that.

        Args:
            claim: Ended by this.
            result: JSON.
            error: Why it failed; None: it did not.
            patience: Seconds to insist where the storage is away; the claim runs out after that.
        """
        self._hosted().requests.finish_later(claim, result, error, patience=patience)

    @bridged
    async def abandon_claim(self, claim: RequestClaim) -> None:
        """Give the key back: nothing was done, whoever asks next does it."""
        await self._hosted().requests.abandon(claim)

    @bridged
    async def leave_claim(self, claim: RequestClaim) -> None:
        """Stop keeping the claim alive, without a word to the storage: it runs out by itself."""
        await self._hosted().requests.leave(claim)

    @bridged
    async def start_saga_under_claim(
        self, claim: RequestClaim, fields: Mapping[str, Any], steps: list[dict[str, Any]]
    ) -> SagaHandle:
        """Start the saga that carries the operation out; from then on the key is the saga's, in one atomic step.

        Args:
            claim: Ended by this, unless nothing was stored.
            fields: ``tenant_id``, ``workflow_type``, ``timeout_seconds``, ``priority`` and ``metadata``.
            steps: As `start_saga` takes them.

        Raises:
            InvalidInput: Nothing was stored; the claim is kept.
            ClaimLost: The claim is another's by now.
            StorageUnavailable: If the saga was stored all the same, it runs, and the key is its own.
        """
        hosted = self._hosted()
        return SagaHandle(await hosted.requests.start_saga(claim, fields, steps), hosted)


class _Relay:
    """Turns points in time of the runtime's clock into seconds, which any clock knows."""

    def __init__(self, holder: ClaimKeptBy) -> None:
        self._holder = holder

    def granted_until(self, deadline: float) -> None:
        self._holder.granted_for(deadline - trio.current_time())

    def lose(self) -> None:
        self._holder.lose()


class _RelayAbroad:
    """The same for a holder in another event loop: the way there counts as time that has passed."""

    def __init__(self, holder: ClaimKeptBy, post: Callable[[Callable[[], None]], None]) -> None:
        self._holder = holder
        self._post = post

    def granted_until(self, deadline: float) -> None:
        until = time.monotonic() + deadline - trio.current_time()
        self._post(lambda: self._holder.granted_for(until - time.monotonic()))

    def lose(self) -> None:
        self._post(self._holder.lose)
