"""Whose request it is: the application's own word first, then credentials, then cookies."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from .credentials import (
    CREDENTIAL_HEADERS,
    certificate_lines,
    cookie_digests,
    credentials_digest,
    sender_digests,
    signature_digests,
)
from .endpoints import UNKNOWN
from .scope import Identity, default_identity

if TYPE_CHECKING:
    from .asgi import Scope
    from .endpoints import Endpoint

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose request it is, as far as the application has said.

    Attributes:
        identity: Tenant and user.
        credentials: A digest of the credentials; None: the user is known, or the request carries none.
        cookies: Digests of cookies and header fields that may name the user; None: none of them count.
    """

    identity: Identity
    credentials: str | None = None
    cookies: tuple[str, ...] | None = None


class SenderRules:
    """How the application tells its users apart; see `BackgroundOperationsMiddleware` for the arguments.

    Raises:
        InvalidInput: An argument makes no sense; the error names it.
    """

    def __init__(
        self,
        identity: Callable[[Scope], Any] = default_identity,
        credentials: Collection[str] | Callable[[Scope], Any] = CREDENTIAL_HEADERS,
        session_cookies: Collection[str] | None = None,
    ) -> None:
        if not callable(identity):
            raise InvalidInput("identity", f"must be callable, not {identity!r:.120}")
        self._identity = identity
        self._asked = credentials if callable(credentials) else None
        self._fields = frozenset() if callable(credentials) else _names("credentials", credentials, lower=True)
        self._cookies = None if session_cookies is None else _names("session_cookies", session_cookies, lower=False)
        self._guesses = credentials is CREDENTIAL_HEADERS  # the application has not said which headers name its users
        self._warned = False

    async def identify(self, scope: Scope, endpoint: Endpoint = UNKNOWN) -> Identity:
        """Tenant and user of a request.

        Raises:
            InvalidInput: A tenant or user is named by what is no name.
            TypeError: The application's callable gives something else than an `Identity` or None.
        """
        # The router that knows the path's parameters comes after the middleware.
        seen = {**scope, "path_params": {**endpoint.parameters, **scope.get("path_params", {})}}
        identity = await _awaited(self._identity(seen))
        if identity is None:
            return Identity()
        if not isinstance(identity, Identity):
            raise TypeError(f"identity must give an Identity or None, not a {type(identity).__name__}")
        return identity

    async def sender(self, scope: Scope, endpoint: Endpoint) -> Sender:
        """Who sends a request; raises as `identify` does."""
        identity = await self.identify(scope, endpoint)
        if identity.user_id is not None:
            return Sender(identity)
        if self._asked is not None:
            return Sender(identity, _digest_of(await _awaited(self._asked(scope))))
        headers = scope["headers"]
        proofs = [*headers, *certificate_lines(scope)]
        credentials = credentials_digest(proofs, self._fields, self._cookies or ())
        if credentials is not None:
            signatures = signature_digests(proofs, self._fields)
            self._warn(signatures, "credentials that sign one request only", "a repetition signed anew")
            session = cookie_digests((), scope.get("session")) if self._cookies is None else ()
            return Sender(identity, credentials, (*signatures, *session) or None)
        named = sender_digests(headers) if self._guesses else ()
        cookies = cookie_digests(headers, scope.get("session")) if self._cookies is None else ()
        self._warn(named, "headers that may name its user", "a repetition with other ones")
        self._warn(cookies, "cookies and no user that is known here", "a repetition with other cookies")
        return Sender(identity, cookies=None if self._cookies is not None and not named else (*cookies, *named))

    def _warn(self, compared: tuple[str, ...], carried: str, refused: str) -> None:
        """Say once that something is compared, and how to change that."""
        if compared and not self._warned:
            self._warned = True
            _log.warning(
                "a request with an idempotency key has %s, so %s is refused; name the cookies of your sessions with "
                "session_cookies, the headers with credentials, or give an identity",
                carried,
                refused,
            )


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _digest_of(given: Any) -> str | None:
    if given is None or given in ("", b""):
        return None
    if not isinstance(given, str | bytes):
        raise TypeError(f"credentials must give a str, bytes or None, not a {type(given).__name__}")
    return sha256(given if isinstance(given, bytes) else given.encode("utf-8", "surrogatepass")).hexdigest()


def _names(field: str, given: Collection[str], *, lower: bool) -> frozenset[bytes]:
    fits = isinstance(given, Collection) and not isinstance(given, str | bytes | dict)
    if not fits or not all(isinstance(name, str) and name and name.isascii() for name in given):
        raise InvalidInput(field, f"must be a collection of names, such as ['sessionid'], not {given!r:.120}")
    return frozenset((name.lower() if lower else name).encode("ascii") for name in given)
