"""Sessions of browsers: a signed cookie that says which token opened it, and until when it counts.

Nothing is kept on the server, so several services with the same tokens accept each other's sessions, and a session
ends with its token. The cookie holds a name and a time, no secret.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import Response

from .callers import Caller
from .tokens import Token, Tokens

COOKIE = "dotmac_tasks_session"
LIFETIME = 12 * 3600
"""Seconds until a session ends."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """Opens sessions and reads them back."""

    tokens: Tokens

    def begin(self, request: Request, response: Response, token: Token) -> None:
        """Set the cookie that stands for the token from now on."""
        forwarded = request.headers.get("x-forwarded-proto", "")
        claim = f"{quote(token.caller.name, safe='')}.{int(time.time()) + LIFETIME}"
        response.set_cookie(
            COOKIE,
            f"{claim}.{_signature(token, claim)}",
            max_age=LIFETIME,
            httponly=True,
            samesite="strict",
            secure="https" in (request.scope.get("scheme"), forwarded.partition(",")[0].strip().lower()),
        )

    @staticmethod
    def end(response: Response) -> None:
        """Take the cookie away."""
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    def caller(self, cookie: str) -> Caller | None:
        """Whom the cookie stands for; None if it is not ours, or its time or its token is gone."""
        claim, _, signature = cookie.rpartition(".")
        name, _, until = claim.rpartition(".")
        token = self.tokens.named(unquote(name))
        if token is None or not until.isdigit() or not until.isascii():
            return None
        if not hmac.compare_digest(_signature(token, claim).encode(), signature.encode("utf-8", "surrogatepass")):
            return None
        return replace(token.caller, by_session=True) if time.time() < int(until) else None


def _signature(token: Token, claim: str) -> str:
    return hmac.digest(token.session_key, claim.encode(), "sha256").hex()
