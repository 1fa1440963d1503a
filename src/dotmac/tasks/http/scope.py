"""Who asks, and the name of the record for what is asked: what keeps one caller's responses from another. Pure.

A record's name is a digest of tenant, user, origin, method, path and key; the key itself cannot be read from it. Where
no user is known, the credentials of the request stand for one (see `credentials`). Requests without user, credentials
and cookies are told apart by their keys alone, which then have to be unguessable, as random UUIDs are.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from ..errors import InvalidInput
from ..idempotency import check_name
from .netstrings import netstrings

_SOURCES = {"tenant_id": b"x-tenant-id", "user_id": b"x-user-id"}
_IDS = ("user_id", "id", "sub")
_NAMING = frozenset(_SOURCES.values())
_VERSION = b"dotmac-http-1"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request.

    Attributes:
        tenant_id: The tenant; None: the application has none, or this request belongs to none.
        user_id: The user within the tenant; None: not known. Credentials stand for the user then.
    """

    tenant_id: str | None = None
    user_id: str | None = None

    def __post_init__(self) -> None:
        if self.tenant_id is not None:
            check_name("tenant_id", self.tenant_id)
        if self.user_id is not None:
            check_name("user_id", self.user_id)


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is sent to.

    Attributes:
        origin: Scheme and authority, see `origin_of`; empty: one record whatever the host.
        method: In capitals.
        path: As the client sees it, see `full_path`.
    """

    origin: str
    method: str
    path: str


def default_identity(scope: Mapping[str, Any]) -> Identity:
    """Tenant and user of a request, each from the first place that has it.

    The places are, in this order: ``tenant_id`` and ``user_id`` of the request's state, where an authentication in
    front may have put them; ``scope["user"]`` of Starlette's ``AuthenticationMiddleware``, once it is authenticated;
    ``tenant_id`` and ``user_id`` (or ``user``) of the session of a ``SessionMiddleware`` further out; the headers
    ``X-Tenant-ID`` and ``X-User-ID``; and, for the tenant, a parameter of the path. The headers are believed: they are
    meant to be set by a gateway. Where clients could send their own, give the middleware an ``identity`` that reads
    what the authentication found. A ``user_id`` in the path names a resource, not the user who sends the request.

    Args:
        scope: Of the request, as ASGI has it.

    Raises:
        InvalidInput: A tenant or user is named twice, or by what is no name.
    """
    headers = [(name, value) for name, value in scope.get("headers", ()) if name in _NAMING]
    found_tenant, found_user = _from_header("tenant_id", headers), _from_header("user_id", headers)
    session = scope.get("session")
    session = session if isinstance(session, Mapping) else {}
    tenant = _first(
        "tenant_id",
        _member(scope.get("state"), "tenant_id"),
        _named_in(session.get("tenant_id")),
        found_tenant,
        (scope.get("path_params") or {}).get("tenant_id"),
    )
    user = _first(
        "user_id",
        _member(scope.get("state"), "user_id"),
        _authenticated(scope.get("user")),
        _named_in(session.get("user_id")),
        _named_in(session.get("user")),
        found_user,
    )
    return Identity(tenant, user)


def record_key(
    identity: Identity,
    target: Target,
    key: str,
    *,
    strict: bool = False,
    credentials: str | None = None,
) -> str:
    """The name of the record of a request: 64 hexadecimal digits, different for different arguments.

    Args:
        identity: Who asks.
        target: Where the request is sent to.
        key: The idempotency key.
        strict: Leave method and path out: the record is found under any, and the fingerprint tells them apart.
        credentials: A digest of them, see `credentials_digest`. It counts only where no user is known, so that a
            user whose token was renewed still meets what he began under the old one.
    """
    digest = credentials if identity.user_id is None else None
    where = (None, None) if strict else (target.method, target.path)
    parts = (identity.tenant_id, identity.user_id, digest, target.origin, *where, key)
    # Half a surrogate pair, which a server may make of a path that is no UTF-8, is a name like any other here.
    encoded = [part if part is None else part.encode("utf-8", "surrogatepass") for part in parts]
    return sha256(netstrings((_VERSION, *encoded))).hexdigest()


def full_path(scope: Mapping[str, Any]) -> str:
    """The path of a request as its client sees it, whether or not the server repeats ``root_path`` in it."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if path == root or path.startswith(root + "/"):
        return path
    return root + path


def _first(name: str, *found: Any) -> str | None:
    value = next((value for value in found if value is not None and value != ""), None)
    return None if value is None else _text(name, value)


def _from_header(name: str, headers: list[tuple[bytes, bytes]]) -> str | None:
    source = _SOURCES[name]
    values = [value for header, value in headers if header == source]
    if len(values) > 1:
        raise InvalidInput(source.decode().title(), f"must be sent once, not {len(values)} times")
    return values[0].decode("latin-1").strip() if values else None


def _member(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _authenticated(user: Any) -> Any:
    """What names the user that an authentication middleware has found; None: it has found none.

    A user object whose identity cannot be read is refused: without one, two users would share a record.
    """
    if user is None or getattr(user, "is_authenticated", True) is False:
        return None
    named = _named_in(user)
    for attribute in ("identity", "user_id", "id", "username"):
        if named is None:
            with suppress(NotImplementedError):  # Starlette's BaseUser has no identity of its own
                named = getattr(user, attribute, None)
    if named is None or named == "":
        raise InvalidInput("user", f"{type(user).__name__} has no identity; give the middleware an `identity`")
    return named


def _named_in(user: Any) -> Any:
    """The user that a text, a number, or a mapping with an id stands for."""
    if isinstance(user, Mapping):
        user = next((user[name] for name in _IDS if user.get(name)), None)
    return user if isinstance(user, str | int | UUID) and not isinstance(user, bool) else None


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | UUID):
        raise InvalidInput(name, f"must be a string, an int or a UUID, not a value of type {type(value).__name__}")
    return str(value)
