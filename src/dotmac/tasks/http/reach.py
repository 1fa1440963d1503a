"""How far a request came inside the app: which router got it, and whether an endpoint was selected.

An answer without an endpoint behind it (a redirect, an unknown path, a refusal by a middleware) had no effect, so it is
not stored. Only routers of Starlette and FastAPI are known. Each one in the way of a request gets a `RouterProbe`
innermost in its ``middleware_stack``: the scope that arrives there is the one that the router updates, also where a
middleware in between has copied the scope. A route with middleware of its own gets an `EndpointProbe` behind it. An app
without such a router is unknown, and counts as reached.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import anyio

from ..callables import is_async
from .endpoint_calls import EndpointCall

if TYPE_CHECKING:
    from .asgi import ASGIApp, Receive, Scope, Send
    from .endpoint_calls import Fate

_KEY = "dotmac.tasks.reach"
_INNER = ("app", "_app", "inner", "application")  # attributes by which a layer of middleware holds its inner app
_DEPTH = 64  # layers of middleware around a router


class Reach:
    """How far one request came.

    Args:
        known: Whether a probed router lies ahead.

    Attributes:
        invalid: Whether FastAPI refused the request's parameters.
        watches: Whether the ends of the calls are noted, for `fate`.
    """

    __slots__ = (
        "_between",
        "_calls",
        "_function",
        "_innermost",
        "_known",
        "_scopes",
        "_selected",
        "invalid",
        "watches",
    )

    def __init__(self, *, known: bool) -> None:
        self._known = known
        self._between = True  # at layers of middleware, before a router or an endpoint
        self._selected = False
        self._function = False
        self._innermost = 0  # number of routers in which the newest one is
        self._scopes: list[Scope] = []  # a scope is held only while its router runs, as it refers to this object
        self._calls: list[EndpointCall] = []
        self.invalid = False
        self.watches = False

    def enter(self, scope: Scope) -> None:
        """A router got the request."""
        self._between = False
        self._scopes.append(scope)
        self._innermost = len(self._scopes)
        self._watch_validation(scope)

    def leave(self) -> None:
        """The innermost router returned."""
        self._look()
        self._scopes.pop()

    def select(self) -> None:
        """An endpoint behind layers of middleware was called."""
        self._selected = True

    async def call(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, is_router: bool) -> None:
        """Call a router, or an endpoint, and note how the call ends.

        Args:
            app: The router or the endpoint.
            scope: Of the call.
            receive: Of the call.
            send: Of the call.
            is_router: Whether the app is a router, which may find no endpoint.
        """
        if not self.watches:
            await app(scope, receive, send)
            return
        call = EndpointCall(scope if is_router else None)
        self._calls.append(call)
        error: BaseException | None = None
        try:
            await app(scope, receive, call.watched(send))
        except BaseException as raised:
            error = raised
            raise
        finally:
            call.has_endpoint = call.has_endpoint or _has_endpoint(scope)
            call.end(error)
            del error  # which refers to this frame

    def fate(self, answered: int) -> Fate:
        """What became of the endpoint that was called last.

        Args:
            answered: Status of the client's answer, which is about to be complete.
        """
        for call in reversed(self._calls):
            if call.has_endpoint or (call.scope is not None and _has_endpoint(call.scope)):
                return call.fate(answered)
        return "ended"

    def nothing_ran(self, *, body_read: bool) -> bool:
        """Whether no endpoint was called so far.

        Args:
            body_read: Whether the request's body was asked for. A middleware that reads it and answers in place of
                what is inside may be a door to another app, so it counts as an endpoint.
        """
        if not self._known:
            return False
        if self.invalid:
            return True
        self._look()
        return not (self._selected or (self._between and body_read))

    def function_ran(self) -> bool:
        """Whether an endpoint was called that is a function; a class or an app may turn a request away by itself."""
        self._look()
        return self._function

    def _look(self) -> None:
        """Note what the routers that have the request selected."""
        self._selected = self._selected or any(map(_has_endpoint, self._scopes))
        self._function = self._function or (self._selected and any(map(_has_function, self._scopes)))
        if self._scopes and self._innermost == len(self._scopes):
            self._between = self._scopes[-1].get("endpoint") is not None

    def _watch_validation(self, scope: Scope) -> None:
        """Notice the error by which FastAPI refuses a request before it calls the endpoint."""
        exceptions = sys.modules.get("fastapi.exceptions")
        handlers = scope.get("starlette.exception_handlers")
        if exceptions is None or handlers is None:
            return
        by_type, by_status = handlers
        handler = by_type.get(exceptions.RequestValidationError)
        if handler is not None:
            noting = partial(self._refused, handler)
            scope["starlette.exception_handlers"] = ({**by_type, exceptions.RequestValidationError: noting}, by_status)

    async def _refused(self, handler: Callable[..., Any], request: Any, error: Exception) -> Any:
        self.invalid = _is_raised_by_fastapi(error)
        if is_async(handler):
            return await handler(request, error)
        return await anyio.to_thread.run_sync(handler, request, error)


class RouterProbe:
    """An ASGI app around a router that notes each request's scope.

    Args:
        inner: The router's ``app``.
    """

    def __init__(self, inner: ASGIApp) -> None:
        self.app = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        reach = scope.get(_KEY)
        if not isinstance(reach, Reach):
            await self.app(scope, receive, send)
            return
        reach.enter(scope)
        try:
            await reach.call(self.app, scope, receive, send, is_router=True)
        finally:
            reach.leave()


class EndpointProbe:
    """An ASGI app around an endpoint, behind the middleware of its route, that notes each call.

    Args:
        endpoint: As the route's middleware would call it.
    """

    def __init__(self, endpoint: ASGIApp) -> None:
        self.app = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        reach = scope.get(_KEY)
        if isinstance(reach, Reach):
            reach.select()
            await reach.call(self.app, scope, receive, send, is_router=False)
        else:
            await self.app(scope, receive, send)


class Fallback:
    """The app for what no route of a router matches, noted in the scope as a mount notes its app.

    Args:
        inner: The router's ``default``.
    """

    def __init__(self, inner: ASGIApp) -> None:
        self.app = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        scope["endpoint"] = self.app
        await self.app(scope, receive, send)


def watch(scope: Scope, router: Any | None) -> Reach:
    """Begin to note how far the request with this scope comes.

    Args:
        scope: Of the request.
        router: The one that lies ahead; None: unknown.
    """
    reach = scope[_KEY] = Reach(known=router is not None and probe(router))
    return reach


def router_ahead(app: ASGIApp, scope: Scope) -> Any | None:
    """The router that a request is on its way to; None: unknown.

    Args:
        app: What the request is passed to next.
        scope: Of the request.
    """
    router = router_in(app)
    if router is None and "router" not in scope:  # else the host app's router lies behind the request
        router = router_in(scope.get("app"))
    return router


def router_in(app: Any) -> Any | None:
    """The router of an app, through the layers of middleware around it; None: unknown."""
    routing = sys.modules.get("starlette.routing")
    if routing is None:
        return None
    applications = sys.modules.get("starlette.applications")
    for _ in range(_DEPTH):
        if isinstance(app, routing.Router):
            return app if type(app).__call__ is routing.Router.__call__ else None
        is_application = applications is not None and isinstance(app, applications.Starlette)
        names = ("router",) if is_application else _INNER
        app = next((inner for name in names if (inner := getattr(app, name, None)) is not None), None)
        if app is None:
            return None
    return None


def probe(router: Any) -> bool:
    """Put a probe into a router unless it has one; whether it has one now."""
    found = _innermost(router)
    if found is None:
        return False
    holder, name, inner = found
    if not isinstance(inner, RouterProbe):
        setattr(holder, name, RouterProbe(inner))
    fallback = fallback_of(router)
    if fallback is not None and not isinstance(router.default, Fallback):
        router.default = Fallback(fallback)
    return True


def fallback_of(router: Any) -> Any | None:
    """The app that gets what no route of the router matches; None: a plain 404."""
    default = router.default
    if isinstance(default, Fallback):
        return default.app
    plain = sys.modules["starlette.routing"].Router.not_found
    return None if getattr(default, "__func__", None) is plain else default


def probe_route(route: Any) -> None:
    """Put a probe behind the middleware of a route of Starlette, where it has any."""
    found = _innermost_of_route(route)
    if found is not None and not isinstance(found[1], EndpointProbe):
        found[0].app = EndpointProbe(found[1])


def _innermost(router: Any) -> tuple[Any, str, Any] | None:
    """What holds the router's own ``app`` or its probe, by which attribute; None: a layer hides it."""
    holder, name = router, "middleware_stack"
    for _ in range(_DEPTH):
        inner = getattr(holder, name, None)
        if isinstance(inner, RouterProbe) or getattr(inner, "__self__", None) is router:
            return holder, name, inner
        holder, name = inner, "app"
    return None


def _innermost_of_route(route: Any) -> tuple[Any, Any] | None:
    """The innermost middleware of a route, and what it calls: the endpoint or its probe; None: it has none.

    FastAPI's routes take no middleware, and are called with another app where their router is included.
    """
    holder, inner = None, getattr(route, "app", None)
    endpoint = getattr(route, "endpoint", None)
    if endpoint is None or hasattr(route, "dependant"):
        return None
    for _ in range(_DEPTH):
        if isinstance(inner, EndpointProbe | FunctionType) or inner is endpoint:
            return None if holder is None else (holder, inner)
        holder, inner = inner, getattr(inner, "app", None)
    return None


def _has_endpoint(scope: Scope) -> bool:
    """Whether the router has selected an endpoint without a probe."""
    endpoint = scope.get("endpoint")
    if endpoint is None:
        return False
    found = _innermost_of_route(scope.get("route"))
    if found is not None and isinstance(found[1], EndpointProbe):
        return False
    router = router_in(endpoint)
    if router is None:
        return True
    probed = _innermost(router)
    return probed is None or not isinstance(probed[2], RouterProbe)


def _has_function(scope: Scope) -> bool:
    """Whether the router has selected a function for the method of the request."""
    methods = getattr(scope.get("route"), "methods", None) or ()
    return scope["method"] in methods and inspect.isroutine(scope.get("endpoint"))


def _is_raised_by_fastapi(error: Exception) -> bool:
    """Whether FastAPI raised the error, and not an endpoint, which can have done something before."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == "fastapi.routing"
