"""The record of one request: how its endings are written down, and how they are read again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from . import problems
from .asgi import Reply, header_values, with_header
from .encodings import suited
from .replay import StoredResponse, replay_messages
from .sealing import seal_response, unseal_response

if TYPE_CHECKING:
    from .asgi import ASGIApp, Scope
    from .problems import Header, Problem
    from .recorder import Recorder
    from .sealing import ResponseCodec

_ERRORS = 400  # statuses from here on


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended, as it is stored.

    Attributes:
        record: The response that repetitions get, in its stored form.
        error: Why it failed; None: it did not.
    """

    record: bytes
    error: str | None


class RecordBook:
    """Writes and reads what is stored under one key.

    Args:
        record_key: Of the record; binds what is sealed to it.
        codec: Seals responses at rest; None: they are stored as they are.
        marker: The header that marks a response that was not made for the request which gets it.
        unstored: Names of response headers to leave out.
    """

    def __init__(
        self, record_key: str, codec: ResponseCodec | None, marker: Header, unstored: Collection[str] = ()
    ) -> None:
        self._record_key = record_key
        self._codec = codec
        self._marker = marker
        self._unstored = [name.encode("latin-1") for name in unstored]

    # --- writing --------------------------------------------------------------------------------------------

    def answered(self, recorder: Recorder, result: bytes | None, cookies: tuple[str, ...] = ()) -> Ending:
        """The app answered.

        Args:
            recorder: Has the response.
            result: JSON that the handler wants to be kept beside it.
            cookies: Digests of the cookies that the response sets, if they count.
        """
        status = recorder.status or 0
        stored = StoredResponse.of(
            status,
            recorder.headers,
            recorder.body if recorder.kept else None,
            result=None if result is None else msgspec.Raw(result),
            unstored=self._unstored,
            cookies=cookies,
        )
        return Ending(self._sealed(stored), f"answered with {status}" if status >= _ERRORS else None)

    def failed(self, error: Exception | None) -> Ending:
        """The app raised before it answered, or (None) did not answer."""
        return self._problem(problems.handler_failed(), "no answer" if error is None else type(error).__name__)

    def unknown(self, why: str) -> Ending:
        """Nobody can say how far the app came."""
        return self._problem(problems.outcome_unknown(), f"outcome unknown: {why}")

    def _problem(self, problem: Problem, error: str) -> Ending:
        headers = ((b"content-type", problems.PROBLEM_JSON),)
        return Ending(self._sealed(StoredResponse(status=problem.status, headers=headers, body=problem.body)), error)

    def _sealed(self, stored: StoredResponse) -> bytes:
        return seal_response(stored, self._codec, self._record_key)

    # --- reading --------------------------------------------------------------------------------------------

    def replayed(self, record: bytes, scope: Scope) -> ASGIApp:
        """The stored response, for a request that repeats the first one.

        Raises:
            StoredResponseUnreadable: It is damaged, or no key that is known opens it.
        """
        accepted = header_values(scope, b"accept-encoding")
        whole = unseal_response(record, self._codec, self._record_key)
        stored = suited(whole, b",".join(accepted) if accepted else None)
        if stored is None:
            return Reply(problems.encoding_not_acceptable().messages(extra_headers=[self._marker]))
        return Reply(replay_messages(stored, [self._marker], head=scope["method"] == "HEAD"))

    def given_cookies(self, record: bytes) -> tuple[str, ...]:
        """Digests of the cookies that the stored response has set; raises as `replayed` does."""
        return unseal_response(record, self._codec, self._record_key).cookies

    def marked(self, answer: ASGIApp) -> ASGIApp:
        """An answer that was not made for the request which gets it, with the mark that says so."""
        return with_header(answer, self._marker)
