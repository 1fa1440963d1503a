"""Looks ahead to the endpoint that an app's router will choose, because the middleware runs before the router does.

Routers of Starlette and FastAPI are known, also behind middleware that holds its inner app as ``app``. A plain ASGI app
has no endpoint to look ahead to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .asgi import Scope, route_path
from .reach import probe, router_in

_FULL = 2  # starlette.routing.Match.FULL: path and method fit


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What will handle a request, as far as it can be known before.

    Attributes:
        function: The endpoint, undecorated; None: not known.
        template: The route's path with its parameters' names; None: not known.
        parameters: Values of the parameters in the path.
    """

    function: Any = None
    template: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


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
    found = _search(router.routes, dict(scope), "")
    return NOWHERE if found is UNKNOWN else found


def _search(routes: Any, scope: dict[str, Any], prefix: str) -> Endpoint:
    for route in routes:
        if hasattr(route, "effective_candidates"):  # FastAPI's included routers, whose own `matches` names no endpoint
            found = _search_included(route, scope)
            if found is not UNKNOWN:
                return found
            continue
        match, child = route.matches(scope)
        if match.value != _FULL:
            continue
        template = prefix + getattr(route, "path", "")
        inner = None if hasattr(route, "endpoint") else router_in(getattr(route, "app", None))
        if inner is not None:  # of a mount or a host
            probe(inner)
            return _search(inner.routes, {**scope, **child}, template)
        return Endpoint(child.get("endpoint"), template or None, child.get("path_params", {}))
    return UNKNOWN


def _search_included(router: Any, scope: dict[str, Any]) -> Endpoint:
    for candidate in router.effective_candidates():
        if hasattr(candidate, "effective_candidates"):
            found = _search_included(candidate, scope)
            if found is not UNKNOWN:
                return found
            continue
        pattern, methods = getattr(candidate, "path_regex", None), getattr(candidate, "methods", None)
        fits = pattern is not None and pattern.match(route_path(scope))
        if fits and (methods is None or scope["method"] in methods):
            return Endpoint(candidate.endpoint, candidate.path, fits.groupdict())
    return UNKNOWN
