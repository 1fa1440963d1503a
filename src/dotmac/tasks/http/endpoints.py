"""Looks ahead to the endpoint that an app's router will choose, because the middleware runs before the router does.

Routers of Starlette and FastAPI are known, also behind middleware that holds its inner app as ``app``. A plain ASGI app
has no endpoint to look ahead to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .asgi import Scope, route_path
from .reach import fallback_of, probe, probe_route, router_in

_FULL = 2  # starlette.routing.Match.FULL: path and method fit


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What will handle a request, as far as it can be known before.

    Attributes:
        function: The endpoint, undecorated; None: not known.
        template: The route's path with its parameters' names; None: not known.
        parameters: Values of the parameters in the path.
        host: The patterns of the ``Host`` routes around it; empty: none.
    """

    function: Any = None
    template: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    host: str = ""


UNKNOWN = Endpoint()
NOWHERE = Endpoint()
"""No route of the router matches, so only a middleware inside can answer with anything but an error."""


def find_endpoint(scope: Scope, router: Any | None) -> Endpoint:
    """The endpoint that a router will choose.

    Args:
        scope: Of the request.
        router: The one that lies ahead; None: unknown.
    """
    if router is None:
        return UNKNOWN
    found = _search(router, dict(scope), Endpoint())
    return found if found is not None else UNKNOWN


def _search(router: Any, scope: dict[str, Any], around: Endpoint) -> Endpoint | None:
    """The endpoint within a router; None: the router passes the request to an app that is unknown.

    Args:
        router: Of Starlette or FastAPI.
        scope: As it arrives there.
        around: The mounts and hosts around the router.
    """
    for route in router.routes:
        found = _search_included(route, scope, around) if _is_included(route) else _at(route, scope, around)
        if found is not UNKNOWN:
            return found
    fallback = fallback_of(router)
    if fallback is None:
        return NOWHERE
    inner = router_in(fallback)
    if inner is None:
        return None
    probe(inner)
    return _search(inner, scope, around)


def _at(route: Any, scope: dict[str, Any], around: Endpoint) -> Endpoint | None:
    """The endpoint of a route; `UNKNOWN`: the route does not match."""
    match, child = route.matches(scope)
    if match.value != _FULL:
        return UNKNOWN
    template = (around.template or "") + getattr(route, "path", "")
    host = f"{around.host} {route.host}" if hasattr(route, "host_regex") else around.host
    inner = None if hasattr(route, "endpoint") else router_in(getattr(route, "app", None))
    if inner is not None:  # of a mount or a host
        probe(inner)
        return _search(inner, {**scope, **child}, Endpoint(template=template, host=host))
    probe_route(route)
    return Endpoint(child.get("endpoint"), template or None, child.get("path_params", {}), host)


def _is_included(route: Any) -> bool:
    """Whether it is FastAPI's included router, whose own `matches` names no endpoint."""
    return hasattr(route, "effective_candidates")


def _search_included(router: Any, scope: dict[str, Any], around: Endpoint) -> Endpoint | None:
    for candidate in router.effective_candidates():
        found = _at_candidate(candidate, scope, around)
        if found is not UNKNOWN:
            return found
    return UNKNOWN


def _at_candidate(candidate: Any, scope: dict[str, Any], around: Endpoint) -> Endpoint | None:
    if _is_included(candidate):
        return _search_included(candidate, scope, around)
    route = getattr(candidate, "starlette_route", None)
    if route is not None:  # of Starlette: a plain route, a mount or a host
        return _at(route, scope, around)
    pattern, methods = getattr(candidate, "path_regex", None), getattr(candidate, "methods", None)
    fits = pattern is not None and pattern.match(route_path(scope))
    if not fits or (methods is not None and scope["method"] not in methods):
        return UNKNOWN
    return Endpoint(candidate.endpoint, (around.template or "") + candidate.path, fits.groupdict(), around.host)
