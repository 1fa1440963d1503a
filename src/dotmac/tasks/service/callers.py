"""Who sent a request, and what that caller may do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import HTTPConnection

_KEY = "dotmac_tasks_caller"


class Role(StrEnum):
    """What a caller may do: ``view`` reads everything; ``operate`` also starts, cancels and retries sagas."""

    VIEW = "view"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: As it stands in audit entries; never a secret.
        role: What the caller may do.
        by_session: Whether a browser's session stands for the caller, which can be ended by signing out.
    """

    name: str
    role: Role
    by_session: bool = False

    @property
    def may_operate(self) -> bool:
        """Whether the caller may change something."""
        return self.role is Role.OPERATE


LOCAL = Caller("local", Role.OPERATE)
"""Whoever reaches a service that listens on loopback only and has no tokens: everybody on this machine."""


def set_caller(connection: HTTPConnection, caller: Caller) -> None:
    """Note who sent the request."""
    connection.scope[_KEY] = caller


def caller_of(connection: HTTPConnection) -> Caller | None:
    """Who sent the request; None on the few paths that are open to everybody."""
    caller: Caller | None = connection.scope.get(_KEY)
    return caller
