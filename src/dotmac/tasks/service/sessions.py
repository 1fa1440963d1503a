"""Sessions of browsers: a signed cookie that says which token opened it, and until when it counts.

No open session is kept on the server, so several services with the same tokens accept each other's sessions, and a
session ends with its token. The cookie holds a name, a time and the session's id, no secret. A process keeps the ids of
the sessions that were signed out of there until their time is over, so a copy of the cookie is void at that process.
"""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import Response

from .callers import Caller
from .tokens import Token, Tokens

COOKIE = "dotmac_tasks_session"
LIFETIME = 12 * 3600
"""Seconds until a session ends."""


_MOST_ENDED = 10_000


class EndedSessions:
    """Ids of sessions that were signed out of, each until its time is over.

    At `_MOST_ENDED` the oldest sign-out is forgotten. Each of them was a sign-in with a known token, so only
    holders of a token can fill the list.
    """

    def __init__(self) -> None:
        self._until: dict[str, int] = {}  # in the order of signing out

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._until

    def add(self, session_id: str, until: int) -> None:
        """Note that the session was signed out of.

        Args:
            session_id: The session.
            until: When its time is over, in seconds since 1970.
        """
        if session_id not in self._until and len(self._until) >= _MOST_ENDED:
            now = time.time()
            self._until = {known: end for known, end in self._until.items() if end > now}
            while len(self._until) >= _MOST_ENDED:
                del self._until[next(iter(self._until))]
        self._until[session_id] = until


class _Claim(NamedTuple):
    """What a valid cookie says."""

    token: Token
    until: int
    session_id: str


@dataclass(frozen=True, slots=True)
class Sessions:
    """Opens sessions and reads them back."""

    tokens: Tokens
    ended: EndedSessions

    def begin(self, request: Request, response: Response, token: Token) -> None:
        """Set the cookie that stands for the token from now on."""
        forwarded = request.headers.get("x-forwarded-proto", "")
        claim = f"{quote(token.caller.name, safe='')}.{int(time.time()) + LIFETIME}.{secrets.token_urlsafe(12)}"
        response.set_cookie(
            COOKIE,
            f"{claim}.{_signature(token, claim)}",
            max_age=LIFETIME,
            httponly=True,
            samesite="strict",
            secure="https" in (request.scope.get("scheme"), forwarded.partition(",")[0].strip().lower()),
        )

    def end(self, request: Request, response: Response) -> None:
        """Take the cookie away, and end the session that it stands for."""
        claim = self._claim(request.cookies.get(COOKIE, ""))
        if claim is not None:
            self.ended.add(claim.session_id, claim.until)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    def caller(self, cookie: str) -> Caller | None:
        """Whom the cookie stands for; None if it is not ours, it was signed out of, or its time or token is gone."""
        claim = self._claim(cookie)
        if claim is None or claim.session_id in self.ended or time.time() >= claim.until:
            return None
        return replace(claim.token.caller, by_session=True)

    def _claim(self, cookie: str) -> _Claim | None:
        claim, _, signature = cookie.rpartition(".")
        name, until, session_id = [*claim.split("."), "", ""][:3]
        token = self.tokens.named(unquote(name))
        if token is None or not until.isdigit() or not until.isascii():
            return None
        if not hmac.compare_digest(_signature(token, claim).encode(), signature.encode("utf-8", "surrogatepass")):
            return None
        return _Claim(token, int(until), session_id)


def _signature(token: Token, claim: str) -> str:
    return hmac.digest(token.session_key, claim.encode(), "sha256").hex()
