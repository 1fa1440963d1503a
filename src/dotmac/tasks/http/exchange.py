"""One request whose key was granted: the app works under the claim, and how it ended is stored.

What can happen, and what is stored then:

- The app answers: its response, before the client gets the last chunk of it. A status that says that nothing was
  done, or a handler that declares it, gives the key back instead.
- The app starts a saga under the key: nothing from here, the record is the saga's from then on.
- The app raises before it answers: that it failed, or the key is given back, as the route has chosen.
- The app raises in the midst of its answer: an unknown outcome.
- The app is cut off by a cancellation from outside: as the route has chosen for a crash.
- A middleware inside answers with an error in place of an endpoint that it cancelled, or that still runs: the same.
- A middleware inside completes a response that the endpoint broke off: an unknown outcome.
- No endpoint was called: nothing, the key is given back.
- The claim is lost: nothing; somebody else has the key. The app is cancelled.
- The storage is away when the response is complete: the client is served, and the runtime stores the ending once the
  storage is back, whatever the app does after its response. Without an answer of the storage the claim runs out, which
  counts as a crash.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio

from ..errors import ClaimLost, EnvironmentFault, NotStarted
from . import problems
from .asgi import Reply
from .credentials import given_cookies
from .recorder import Recorder

if TYPE_CHECKING:
    from ..runtime.request_claims import RequestClaim
    from .asgi import ASGIApp, Receive, Scope, Send
    from .endpoint_calls import Fate
    from .lifespan import OpenExchanges
    from .records import Ending, RecordBook
    from .state import RequestState

_PATIENCE = 5.0  # seconds that a client's last chunk waits for a storage that is away
# Statuses by which a router or a middleware turns a request away, or fails. Not 502 and 504: a gateway may have passed
# on a request without a body.
_REFUSALS = frozenset(range(300, 600)) - {502, 504}
_NOT_DONE = frozenset({405, 421, 426})  # for another method, server or protocol: RFC 9110, section 15.5
_FAILED = 500  # status that an exception stands for
_BROKEN_OFF = "the handler broke off in the midst of its answer"
_LAST_WORD = 1.0  # seconds for the ending of a request that was cut off, when all is being torn down
_AWAY = (EnvironmentFault, NotStarted)  # not started: the manager was stopped under an app that is still at work
_log = logging.getLogger(__name__)


class Exchange:
    """The app for one request under a granted claim; an ASGI app of its own.

    Args:
        app: The app inside.
        state: Of the request; has the claim.
        book: Writes endings down.
        open_exchanges: Notes this one while it runs.
    """

    def __init__(self, app: ASGIApp, state: RequestState, book: RecordBook, open_exchanges: OpenExchanges) -> None:
        self._app = app
        self._state = state
        self._book = book
        self._open = open_exchanges
        self._ending: Ending | None = None
        self._left_running = False

    async def given_up(self, why: str) -> ASGIApp:
        """Nobody runs the app again: the answer that says so, which repetitions get too."""
        await self._end(self._book.unknown(why), _PATIENCE)
        return Reply(problems.outcome_unknown().messages())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer; returns once its ending is stored, or cannot be.

        Raises:
            ClaimLost: The claim could not be kept, and the client has seen a part of the answer.
            BaseException: What the app raised.
        """
        with self._open.noting(self._state.work):
            await self._run(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._state
        recorder = Recorder(receive, send, state.options.response_limit, self._answered)
        state.reach.watches = True
        try:
            with state.work.begin() as scope_of_work:
                await self._app(_without_shortcuts(scope), recorder.receive, recorder.send)
        except Exception as error:
            await self._raised(recorder, error)
            raise
        except BaseException:
            await self._cut_off(recorder)
            raise
        if state.work.is_cut_off or (self._left_running and not scope_of_work.cancelled_caught):
            await self._cut_off(recorder)
        if scope_of_work.cancelled_caught:
            await self._lost(recorder, scope, receive, send)
        elif not recorder.complete:
            await self._raised(recorder, None)

    async def _answered(self, recorder: Recorder) -> None:
        """The app's work is done; its last chunk waits for us."""
        state = self._state
        if state.claim is None:  # a saga has the key
            return
        fate = self._fate(recorder)
        if fate == "left running":  # the key stays claimed until the app returns
            self._left_running = True
            return
        state.work.unbind()
        if fate == "cut off":
            await self._cut_off(recorder)
        elif fate == "broken off":
            await self._end(self._book.unknown(_BROKEN_OFF), _PATIENCE)
        elif state.no_effect or recorder.status in state.options.release_statuses or self._is_refusal(recorder):
            await self._give_back()
        else:
            cookies = () if state.cookies is None else given_cookies(recorder.headers, state.session)
            self._ending = self._book.answered(recorder, state.result, cookies)
            await self._end(self._ending, _PATIENCE)

    def _fate(self, recorder: Recorder) -> Fate:
        if self._state.no_effect:
            return "ended"
        return "broken off" if recorder.is_short else self._state.reach.fate(recorder.status or 0)

    def _nothing_ran(self, recorder: Recorder) -> bool:
        reach = self._state.reach
        if reach.invalid and self._state.options.on_invalid == "record":
            return False
        return reach.nothing_ran(body_read=recorder.body_read)

    def _is_refusal(self, recorder: Recorder) -> bool:
        """Whether the answer says that nothing was done, or was made without an endpoint and is no success."""
        status = recorder.status or 0
        if status in _NOT_DONE and not self._state.reach.function_ran():
            return True
        return (status in _REFUSALS or self._state.reach.invalid) and self._nothing_ran(recorder)

    async def _raised(self, recorder: Recorder, error: Exception | None) -> None:
        """The app raised, or returned without an answer (None)."""
        state = self._state
        if state.claim is None:
            return
        if self._left_running or state.reach.fate(_FAILED) in {"cut off", "left running"}:
            await self._cut_off(recorder)
            return
        state.work.unbind()
        if recorder.started:
            await self._end(self._book.unknown(_BROKEN_OFF), _PATIENCE)
        elif state.saga_missed or state.options.on_exception == "release" or self._nothing_ran(recorder):
            # A saga that was stored all the same has the key, and giving it back changes nothing then.
            await self._give_back()
        else:
            await self._end(self._book.failed(error), _PATIENCE)

    async def _cut_off(self, recorder: Recorder) -> None:
        """The handler was cancelled, or is left alone: what a crash leaves, without the wait for the lease."""
        state = self._state
        if state.claim is None:
            return
        state.work.unbind()
        if self._ending is not None:  # cut off while the response waited for the storage
            await self._end(self._ending, _LAST_WORD)
        elif state.options.on_crash == "rerun" or (not recorder.started and self._nothing_ran(recorder)):
            await self._give_back()
        else:
            await self._end(self._book.unknown("the handler was cut off"), _LAST_WORD)

    async def _lost(self, recorder: Recorder, scope: Scope, receive: Receive, send: Send) -> None:
        await self._leave()
        told = (
            "the app is being stopped, so a request's handler was cancelled"
            if self._state.work.is_cut_off
            else "the claim on a request's idempotency key could not be kept, so its handler was cancelled"
        )
        _log.warning(told)
        if recorder.started:
            raise ClaimLost(told)
        await Reply(problems.claim_lost().messages())(scope, receive, send)

    async def _give_back(self) -> None:
        claim, self._state.claim = self._state.claim, None
        if claim is not None:
            with anyio.CancelScope(shield=True), suppress(NotStarted):  # then its lease ends by itself
                await self._state.manager.abandon_claim(claim)

    async def _leave(self) -> None:
        claim, self._state.claim = self._state.claim, None
        if claim is not None:
            with suppress(NotStarted):  # then nobody keeps it alive any more
                await self._state.manager.leave_claim(claim)

    async def _end(self, ending: Ending, patience: float) -> None:
        """Store the ending, though all around may be cancelled; where the storage is away, the runtime goes on."""
        claim = self._state.claim
        if claim is None:
            return
        with anyio.move_on_after(patience + _LAST_WORD, shield=True):
            try:
                await self._state.manager.finish_claim(claim, ending.record, ending.error, patience=patience)
                self._state.claim = None
            except ClaimLost as error:
                _log.warning("a request ended after its claim was lost, so its ending is not stored: %s", error)
                self._state.claim = None
            except _AWAY as error:
                _log.warning("the ending of a request is stored later: %s", error)
        if self._state.claim is not None:
            await self._end_later(claim, ending)

    async def _end_later(self, claim: RequestClaim, ending: Ending) -> None:
        self._state.claim = None
        with anyio.CancelScope(shield=True):
            try:
                await self._state.manager.finish_claim_later(
                    claim, ending.record, ending.error, patience=self._state.options.lease
                )
            except NotStarted as error:
                _log.error("the ending of a request is not stored: %s", error)


def _without_shortcuts(scope: Scope) -> Scope:
    """The scope without extensions that would send a response past us, unrecorded."""
    extensions = scope.get("extensions")
    if extensions and not _SHORTCUTS.isdisjoint(extensions):
        scope["extensions"] = {name: value for name, value in extensions.items() if name not in _SHORTCUTS}
    return scope


_SHORTCUTS = frozenset({"http.response.pathsend", "http.response.zerocopysend", "http.response.trailers"})
