"""What the middleware knows of a request, kept in its scope for the handler's helpers."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from ..errors import MiddlewareNotInstalled

if TYPE_CHECKING:
    from ..manager import BackgroundOperationsManager
    from ..runtime.request_claims import RequestClaim
    from .asgi import Scope
    from .options import IdempotencyOptions
    from .reach import Reach
    from .routes import RouteOverrides
    from .scope import Identity

_STATE = "dotmac.tasks"


class Work:
    """The app's work under a claim: a cancel scope that ends when the claim cannot be kept (see `ClaimKeptBy`)."""

    __slots__ = ("_bound", "_deadline", "_scope", "is_cut_off")

    def __init__(self) -> None:
        self._scope: anyio.CancelScope | None = None
        self._deadline = math.inf
        self._bound = True
        self.is_cut_off = False

    def begin(self) -> anyio.CancelScope:
        """The scope to do the work in; made for who gets a claim, since a repetition has no use for it."""
        self._scope = anyio.CancelScope(deadline=self._deadline)
        return self._scope

    def granted_for(self, seconds: float) -> None:
        """See `ClaimKeptBy`."""
        if self._bound:
            self._end_at(anyio.current_time() + seconds)

    def lose(self) -> None:
        """See `ClaimKeptBy`."""
        if self._bound and self._scope is not None:
            self._scope.cancel()
        elif self._bound:
            self._deadline = -math.inf

    def cut_off(self) -> None:
        """End the work, as the app is being stopped."""
        self.is_cut_off = True
        if self._scope is not None:
            self._scope.cancel()

    def unbind(self) -> None:
        """The work goes on without the claim: it is done and only has to be written down, or a saga has the key."""
        self._bound = False
        self._end_at(math.inf)

    def _end_at(self, deadline: float) -> None:
        self._deadline = deadline
        if self._scope is not None:
            self._scope.deadline = deadline


@dataclass(slots=True)
class RequestState:
    """One request.

    Attributes:
        manager: Whose runtime the app's requests are bridged into.
        options: Of this request.
        header: The name of the field that carries keys.
        path: As the client sees it.
        identify: Says whose request it is, from its scope. (The scope refers to this, so this must not refer to it:
            every request would be left for the garbage collector.)
        reach: How far the request came inside the app.
        overrides: Of the endpoint's decorator; None: it has none, or the endpoint is not known.
        key: The idempotency key it carries; None: none, or not looked at (an exempt path, a safe method).
        identity: Whose request it is; None: not asked.
        cookies: Digests of cookies that are compared, because neither user nor credentials are known; None: no cookie
            counts.
        session: The session that a middleware further out has put into the scope.
        record_key: Of the record that the key stands for; None: no claim was asked for.
        work: What is cancelled when the claim is lost.
        claim: While it is held and not ended; None: this request runs without protection, or its ending is settled.
        unprotected: Whether the request carries a key, but the storage could not be asked.
        result: JSON that the handler wants to be kept with the record.
        no_effect: Whether the handler declared that nothing was done, so that the key is free again.
        saga_id: The saga that was started under the key; it owns the record then.
        saga_missed: Whether a saga could not be started for want of a storage.
    """

    manager: BackgroundOperationsManager
    options: IdempotencyOptions
    header: str
    path: str
    identify: Callable[[Scope], Awaitable[Identity]]
    reach: Reach
    overrides: RouteOverrides | None = None
    key: str | None = None
    identity: Identity | None = None
    cookies: tuple[str, ...] | None = None
    session: Any = None
    record_key: str | None = None
    work: Work = field(default_factory=Work)
    claim: RequestClaim | None = None
    unprotected: bool = False
    result: bytes | None = None
    no_effect: bool = False
    saga_id: str | None = None
    saga_missed: bool = False


def keep_state(scope: Scope, state: RequestState) -> None:
    """Make the state known to the handler."""
    scope[_STATE] = state


def state_of(scope: Scope) -> RequestState:
    """The state of the request with this scope.

    Raises:
        MiddlewareNotInstalled: There is none.
    """
    state = scope.get(_STATE)
    if not isinstance(state, RequestState):
        raise MiddlewareNotInstalled(
            "this request did not come through BackgroundOperationsMiddleware; add it with "
            "add_background_operations_middleware(app)"
        )
    return state


def is_handled(scope: Scope) -> bool:
    """Whether a middleware further out has dealt with the request's key: two of them do not claim twice."""
    state = scope.get(_STATE)
    return isinstance(state, RequestState) and (state.record_key is not None or state.unprotected)
