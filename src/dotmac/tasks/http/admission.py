"""The one decision about a request under a key: does it reach the app, and if not, what does it get?"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import DotmacTasksError, EnvironmentFault, NotStarted, StoredResponseUnreadable
from ..metrics import emit
from . import problems
from .asgi import Reply, with_header
from .credentials import is_same_sender
from .duplicates import answer_duplicate
from .exchange import Exchange

if TYPE_CHECKING:
    from ..facade.claims import ClaimAnswer, KeyedRequest
    from .asgi import ASGIApp, Scope
    from .lifespan import RuntimeLife
    from .records import RecordBook
    from .state import RequestState

DEGRADED = (b"idempotency-degraded", b"storage-unavailable")
"""The header of a response to a request that carried a key and was run without protection."""

_RETRY_AFTER = 5.0  # seconds
_log = logging.getLogger(__name__)


class Gate:
    """Asks for the key, and gives the ASGI app that serves the request.

    Args:
        app: The app inside.
        life: Of the runtime.
        owner: Who works here, for people to read.
    """

    def __init__(self, app: ASGIApp, life: RuntimeLife, *, owner: str) -> None:
        self._app = app
        self._life = life
        self._owner = owner

    async def admit(self, state: RequestState, request: KeyedRequest, book: RecordBook, scope: Scope) -> ASGIApp:
        """Claim the key.

        Args:
            state: Of the request; gets the claim.
            request: What is asked, and under which key.
            book: Of the record.
            scope: Of the request.
        """
        try:
            met = await self._ask(state, request)
        except (EnvironmentFault, NotStarted) as error:  # not started: stopped in the moment in which we asked
            return self._without_storage(state, request, error)
        try:
            if met.outcome == "mismatch" and state.cookies is not None and _has_its_cookies(met, request, book):
                met = await self._ask(state, msgspec.structs.replace(request, fingerprint=met.fingerprint))
            return await self._answer(state, met, book, scope)
        except (EnvironmentFault, NotStarted) as error:
            # It is known to be a repetition, so it cannot be run, with or without protection.
            _log.error("the stored answer to a request cannot be had: %s", error)
            return Reply(problems.storage_unavailable(_RETRY_AFTER).messages())

    async def _answer(self, state: RequestState, met: ClaimAnswer, book: RecordBook, scope: Scope) -> ASGIApp:
        if met.outcome == "granted":
            state.claim = met.claim
            exchange = Exchange(self._app, state, book, self._life.exchanges)
            if met.lapsed and state.options.on_crash == "unknown":
                return await exchange.given_up("the process that carried it out ended")
            return exchange
        return await answer_duplicate(state, met, book, scope)

    async def _ask(self, state: RequestState, request: KeyedRequest) -> ClaimAnswer:
        manager = state.manager
        if not self._life.is_ready:
            await self._life.ensure_started()
        met = await manager.begin_claim(request, state.work, owner=self._owner)
        if met.outcome == "in_progress" and state.options.in_flight == "wait":
            try:
                return await manager.begin_claim(
                    request, state.work, owner=self._owner, wait=state.options.wait_seconds
                )
            except (EnvironmentFault, NotStarted) as error:
                # It is known to be a repetition, so it cannot be run, with or without protection.
                _log.warning("a request cannot wait for the one before it any longer: %s", error)
        return met

    def _without_storage(self, state: RequestState, request: KeyedRequest, error: DotmacTasksError) -> ASGIApp:
        passed = state.options.on_storage_error == "pass"
        emit("http_storage_failed", request.operation_type, request.tenant_id, passed=passed, error=str(error))
        if not passed:
            _log.warning("a request with an idempotency key is refused, its storage is away: %s", error)
            return Reply(problems.storage_unavailable(_RETRY_AFTER).messages())
        _log.warning("a request with an idempotency key runs unprotected, its storage is away: %s", error)
        state.unprotected = True
        return with_header(self._app, DEGRADED)


def _has_its_cookies(met: ClaimAnswer, request: KeyedRequest, book: RecordBook) -> bool:
    """Whether a request differs from the first one only by cookies that the first response has set."""
    given: tuple[str, ...] = ()
    if met.result is not None:
        with suppress(StoredResponseUnreadable):  # then the request stays another one
            given = book.given_cookies(met.result)
    return is_same_sender(met.fingerprint, given, request.fingerprint)
