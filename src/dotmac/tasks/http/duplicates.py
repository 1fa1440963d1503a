"""Answers to requests that do not reach the app, because their key was met before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..errors import SagaNotFound, StoredResponseUnreadable
from . import problems
from .asgi import Reply
from .sagas import answer_of

if TYPE_CHECKING:
    from ..facade.claims import ClaimAnswer
    from .asgi import ASGIApp, Scope
    from .records import RecordBook
    from .state import RequestState

_SOONEST, _LATEST = 1, 5  # seconds that a client is asked to wait for somebody else's work


async def answer_duplicate(state: RequestState, met: ClaimAnswer, book: RecordBook, scope: Scope) -> ASGIApp:
    """What a request gets whose key was not granted.

    Args:
        state: Of the request.
        met: What its key met.
        book: Of the record.
        scope: Of the request.

    Raises:
        EnvironmentFault: The stored answer cannot be had or read.
    """
    if met.outcome == "mismatch":
        return Reply(problems.payload_mismatch(state.header, cookies_count=bool(state.cookies)).messages())
    if met.saga_id is not None:
        return await _attached(state, met, book, met.saga_id)
    if met.outcome == "in_progress":
        return _busy(state, met)
    if met.result is None:
        raise StoredResponseUnreadable("the record under a request's key was not written by this middleware")
    return book.replayed(met.result, scope)


async def _attached(state: RequestState, met: ClaimAnswer, book: RecordBook, saga_id: str) -> ASGIApp:
    try:
        answer = await answer_of(state.manager.saga_handle(saga_id), state.options)
    except SagaNotFound:  # the record outlived the saga
        answer = Reply(problems.saga_forgotten(saga_id, met.status).messages())
    return book.marked(answer)


def _busy(state: RequestState, met: ClaimAnswer) -> ASGIApp:
    # The claim's lease is how long a crash would block the key; most work is over long before.
    seconds = min(max(math.ceil(met.retry_after), _SOONEST), _LATEST)
    if state.options.in_flight == "accepted":
        return Reply(problems.accepted_messages(None, seconds))
    return Reply(problems.in_progress(seconds).messages())
