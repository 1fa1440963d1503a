"""Who may reach the service: decided once, from where it listens and what it was given.

Without tokens and without an authenticator everybody who reaches the service may do everything, so it listens on
loopback only and answers only requests that name loopback as their host (a page elsewhere whose name was pointed at
127.0.0.1 sends its own name). Any other address or host name needs tokens or an authenticator.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from ..errors import InvalidInput
from .callers import LOCAL, Caller
from .sessions import COOKIE, EndedSessions, Sessions
from .tokens import Tokens

Authenticator = Callable[[HTTPConnection], Awaitable[Caller | None]]
"""Says who sent a request, or None for nobody it knows. It sees the headers, and must not read the body."""

_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one service.

    Attributes:
        tokens: Bearer tokens, which also open sessions for browsers.
        authenticator: Asked first, if there is one.
        hosts: Host names that requests may name; None: every one (listening on more than loopback), empty:
            loopback's names only.
        ended_sessions: Sessions that were signed out of.
    """

    tokens: Tokens = field(default_factory=Tokens)
    authenticator: Authenticator | None = None
    hosts: frozenset[str] | None = frozenset()
    ended_sessions: EndedSessions = field(default_factory=EndedSessions, compare=False)

    @property
    def is_open(self) -> bool:
        """Whether nobody has to prove who they are."""
        return not self.tokens and self.authenticator is None

    @property
    def sessions(self) -> Sessions:
        """Sessions that the tokens open."""
        return Sessions(self.tokens, self.ended_sessions)

    def serves_host(self, host: str) -> bool:
        """Whether a request may name this host (the `Host` header, with or without a port)."""
        if self.hosts is None:
            return True
        name = host_name(host)
        return is_loopback(name) or name in self.hosts

    async def caller(self, connection: HTTPConnection) -> Caller | None:
        """Who sent the request; None: nobody who may come in.

        Raises:
            TypeError: The authenticator gave something else, which must not count as somebody.
        """
        if self.is_open:
            return LOCAL
        if self.authenticator is not None:
            caller: object = await self.authenticator(connection)
            if isinstance(caller, Caller):
                return caller
            if caller is not None:
                kind = type(caller).__name__
                raise TypeError(f"the authenticator returned a {kind}; it must return a Caller or None")
        scheme, _, presented = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            token = self.tokens.find(presented.strip())
            return None if token is None else token.caller
        cookie = connection.cookies.get(COOKIE)
        return None if cookie is None else self.sessions.caller(cookie)


def access_for(
    binds: Iterable[str],
    *,
    tokens: Tokens | None = None,
    authenticator: Authenticator | None = None,
    hosts: Iterable[str] = (),
) -> Access:
    """The rules for a service that listens on these addresses.

    Args:
        binds: ``HOST:PORT``, ``[IPv6]:PORT`` or ``unix:PATH``.
        tokens: Bearer tokens.
        authenticator: Says who sent a request.
        hosts: Host names beside loopback's that requests may name: what a proxy in front passes on.

    Raises:
        InvalidInput: An address or a host name needs tokens, and there are none.
    """
    beyond = [bind for bind in binds if not bind.startswith("unix:") and not is_loopback(host_name(bind))]
    names = frozenset(name.lower() for name in hosts)
    access = Access(tokens or Tokens(), authenticator, None if beyond and not names else names)
    if access.is_open and (beyond or names):
        field, asked = ("bind", beyond[0]) if beyond else ("host", min(names))
        raise InvalidInput(
            field,
            f"{asked} can be reached from other machines, so callers must prove who they are: give --token-file, "
            "--token-env or --auth, or listen on 127.0.0.1",
        )
    return access


def host_name(host: str) -> str:
    """The name or address in ``HOST``, ``HOST:PORT`` or ``[IPv6]:PORT``, in small letters."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return (host if host.count(":") > 1 else host.partition(":")[0]).lower()


def is_loopback(name: str) -> bool:
    """Whether the name or address means this machine only."""
    if name.rstrip(".") in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
