"""The decorator of endpoints, and its check at the call.

The middleware looks ahead to the endpoint of a request and applies the options of its decorator. An endpoint that is
hidden from the middleware (behind a layer that is a mere function, say) runs without these options. So an endpoint
that needs a key checks at its call that the middleware has seen one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import FunctionType
from typing import Any, TypeVar, Unpack

from ..errors import InvalidInput, MiddlewareNotInstalled
from . import problems
from .asgi import Reply, Scope, header_values
from .options import SAFE_METHODS, OptionOverrides
from .routes import ATTRIBUTE, RouteOverrides, overrides_of
from .sagas import as_starlette
from .state import state_of

present_scope: ContextVar[Scope | None] = ContextVar("dotmac.tasks.http.scope", default=None)
"""The scope of the request that is being served; child tasks and worker threads inherit it."""

_ORIGINAL = "__dotmac_tasks_unchecked__"
_Endpoint = TypeVar("_Endpoint")


def idempotent_route(**overrides: Unpack[OptionOverrides]) -> Callable[[_Endpoint], _Endpoint]:
    """Options for one endpoint: ``@idempotent_route(required=True, in_flight="wait")``, nearest to the function.

    The options are an attribute of the endpoint, which stays what it is. Functions, async or not, classes and objects
    with ``__call__`` can have it; what wraps them with `functools.wraps` has it too. Of two decorators on one endpoint
    the outer one wins.
    With ``required=True`` a function comes back as one of the same signature that checks the key at its call, and a
    class with ``dispatch`` checks it there: a request without a key is refused also where the middleware cannot look
    ahead to the endpoint.

    Args:
        **overrides: Fields of `IdempotencyOptions`.

    Raises:
        InvalidInput: Naming the option, or the endpoint if it takes no attribute.
        MiddlewareNotInstalled: By a call of an endpoint with ``required=True``: the request did not come through the
            middleware, or the middleware has not looked at the key that the request carries.
    """
    checked = RouteOverrides(overrides)

    def decorate(endpoint: _Endpoint) -> _Endpoint:
        inner = overrides_of(endpoint)
        merged = checked if inner is None else RouteOverrides({**inner.values, **overrides}, inner)
        decorated: Any = _unchecked(endpoint)
        if merged.values.get("required"):
            decorated = _with_check(decorated, merged)
        try:
            setattr(decorated, ATTRIBUTE, merged)
        except AttributeError:
            reason = f"{type(endpoint).__name__} takes no attribute; decorate the function that it comes from"
            raise InvalidInput("endpoint", reason) from None
        return decorated  # type: ignore[no-any-return]  # of the endpoint's own type and signature

    return decorate


def _unchecked(endpoint: Any) -> Any:
    """The endpoint without the check of an inner decorator."""
    original = getattr(endpoint, _ORIGINAL, None)
    if original is None or original[0] is not endpoint:  # `functools.wraps` copies the attribute
        return endpoint
    if isinstance(endpoint, type):
        endpoint.dispatch = original[1]  # type: ignore[attr-defined]
        return endpoint
    return original[1]


def _with_check(endpoint: Any, overrides: RouteOverrides) -> Any:
    if isinstance(endpoint, type):
        dispatch = getattr(endpoint, "dispatch", None)
        if dispatch is not None:
            endpoint.dispatch = _checked_dispatch(dispatch, endpoint, overrides)  # type: ignore[attr-defined]
            setattr(endpoint, _ORIGINAL, (endpoint, dispatch))
        return endpoint
    if type(endpoint) is functools.partial:
        checked = functools.partial(_with_check(endpoint.func, overrides), *endpoint.args, **endpoint.keywords)
        setattr(checked, _ORIGINAL, (checked, endpoint))
        return checked
    if not isinstance(endpoint, FunctionType):
        return endpoint
    if inspect.isgeneratorfunction(endpoint) or inspect.isasyncgenfunction(endpoint):  # a call runs nothing yet
        return endpoint
    made = _checked_async if inspect.iscoroutinefunction(endpoint) else _checked_plain
    checking = made(endpoint, functools.partial(_refusal, overrides, endpoint.__qualname__))
    # In the globals of the endpoint, where FastAPI looks up its annotations.
    function = FunctionType(checking.__code__, endpoint.__globals__, closure=checking.__closure__)
    functools.update_wrapper(function, endpoint)
    setattr(function, _ORIGINAL, (function, endpoint))
    return function


def _checked_async(endpoint: Any, refusal: Callable[[], Any]) -> FunctionType:
    answer = _answer

    async def call(*args: Any, **kwargs: Any) -> Any:
        refused = refusal()
        if refused is not None:
            return await answer(refused, args)
        return await endpoint(*args, **kwargs)

    return call  # type: ignore[return-value]  # a function is a FunctionType


def _checked_plain(endpoint: Any, refusal: Callable[[], Any]) -> FunctionType:
    def call(*args: Any, **kwargs: Any) -> Any:
        refused = refusal()
        return endpoint(*args, **kwargs) if refused is None else refused

    return call  # type: ignore[return-value]  # a function is a FunctionType


def _checked_dispatch(dispatch: Any, endpoint: type, overrides: RouteOverrides) -> Any:
    @functools.wraps(dispatch)
    async def call(self: Any) -> None:
        word = overrides_of(endpoint, self.scope["method"])
        refused = _refusal(overrides, endpoint.__qualname__) if word is overrides else None  # a method has its own
        await (dispatch(self) if refused is None else refused(self.scope, self.receive, self.send))

    return call


_ASGI_ARGUMENTS = 3


async def _answer(refused: Any, args: tuple[Any, ...]) -> Any:
    """Send the refusal where the endpoint is an ASGI app, else return it to the router."""
    call = args[-_ASGI_ARGUMENTS:]
    if len(call) == _ASGI_ARGUMENTS and isinstance(call[0], dict) and "type" in call[0]:
        sent: Awaitable[None] = refused(*call)
        return await sent
    return refused


def _refusal(overrides: RouteOverrides, name: str) -> Any:
    """The answer to a request that must not reach the endpoint; None: the request may."""
    scope = present_scope.get()
    if scope is None:
        raise MiddlewareNotInstalled(
            f"{name} needs an idempotency key (idempotent_route), but its request did not come through "
            "BackgroundOperationsMiddleware; add it with add_background_operations_middleware(app)"
        )
    state, method, methods = state_of(scope), scope["method"], overrides.values.get("methods")
    if state.key is not None or method in SAFE_METHODS or overrides.values.get("exempt"):
        return None
    if state.overrides is not None and state.overrides.has(overrides):  # the middleware has decided by them
        return None
    if methods is not None and method not in methods:
        return None
    if header_values(scope, state.header.lower().encode()):
        raise MiddlewareNotInstalled(
            f"{name} needs an idempotency key (idempotent_route), but a layer between BackgroundOperationsMiddleware "
            f"and {name} hides it, so the middleware has not looked at the key of this {method} request; "
            f'write RouteRule("{method} <path>", required=True)'
        )
    return as_starlette(Reply(problems.key_missing(state.header).messages()))
