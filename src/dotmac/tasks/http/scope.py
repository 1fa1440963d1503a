"""Who asks, and the name of the record for what is asked: what keeps one caller's responses from another. Pure.

A record's name is a digest of tenant, user, method, path and key; the key itself cannot be read from it. Where no user
is known, the credentials of the request stand for one, so that there is no bucket that strangers share. A request
without any of them is told apart by its key alone, which then has to be unguessable, as a random UUID is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from ..errors import InvalidInput
from ..idempotency import check_name
from .netstrings import netstrings

_CREDENTIALS = (b"authorization", b"x-api-key")
_SOURCES = {"tenant_id": b"x-tenant-id", "user_id": b"x-user-id"}
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


def default_identity(scope: Mapping[str, Any]) -> Identity:
    """Tenant and user of a request, each from the first place that has it.

    These are ``tenant_id`` and ``user_id`` of the request's state, where an authentication in front may have put
    them; the headers ``X-Tenant-ID`` and ``X-User-ID``; and parameters of the path of these names. The headers are
    believed: they are meant to be set by a gateway. Where clients could send their own, give the middleware an
    ``identity`` that asks whoever authenticates.

    Args:
        scope: Of the request, as ASGI has it.

    Raises:
        InvalidInput: A tenant or user is named twice, or by what is no name.
    """
    headers = [(name, value) for name, value in scope.get("headers", ()) if name in _NAMING]
    return Identity(_named("tenant_id", scope, headers), _named("user_id", scope, headers))


def credentials_digest(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """A digest of what a request proves its sender with; None: it brings nothing.

    That is the ``Authorization`` header and the ``X-API-Key`` header. Cookies do not count: a site changes them between
    a request and its repetition (a session that is renewed, a counter), which would then be carried out twice.
    """
    proofs = [line for line in headers if line[0] in _CREDENTIALS]
    if not proofs:
        return None
    return sha256(netstrings(part for line in proofs for part in line)).hexdigest()


def record_key(
    identity: Identity,
    method: str,
    path: str,
    key: str,
    *,
    strict: bool = False,
    credentials: str | None = None,
) -> str:
    """The name of the record of a request: 64 hexadecimal digits, different for different arguments.

    Args:
        identity: Who asks.
        method: In capitals.
        path: As the client sees it, see `full_path`.
        key: The idempotency key.
        strict: Leave method and path out: the record is found under any, and the fingerprint tells them apart.
        credentials: A digest of them, see `credentials_digest`. It counts only where no user is known, so that a
            user whose token was renewed still meets what he began under the old one.
    """
    digest = credentials if identity.user_id is None else None
    where = (None, None) if strict else (method, path)
    parts = (identity.tenant_id, identity.user_id, digest, *where, key)
    # Half a surrogate pair, which a server may make of a path that is no UTF-8, is a name like any other here.
    encoded = [part if part is None else part.encode("utf-8", "surrogatepass") for part in parts]
    return sha256(netstrings((_VERSION, *encoded))).hexdigest()


def full_path(scope: Mapping[str, Any]) -> str:
    """The path of a request as its client sees it, whether or not the server repeats ``root_path`` in it."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    if path == root or path.startswith(root + "/"):
        return path
    return root + path


def _named(name: str, scope: Mapping[str, Any], headers: list[tuple[bytes, bytes]]) -> str | None:
    source = _SOURCES[name]
    values = [value for header, value in headers if header == source]
    if len(values) > 1:
        raise InvalidInput(source.decode().title(), f"must be sent once, not {len(values)} times")
    state = scope.get("state")
    found = state.get(name) if isinstance(state, dict | Mapping) else getattr(state, name, None)
    if found is None or found == "":
        found = values[0].decode("latin-1").strip() if values else None
    if found is None or found == "":
        found = (scope.get("path_params") or {}).get(name)
    return None if found is None or found == "" else _text(name, found)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | UUID):
        raise InvalidInput(name, f"must be a string, an int or a UUID, not a value of type {type(value).__name__}")
    return str(value)
