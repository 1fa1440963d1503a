"""Looks ahead to the endpoint that an app's router will choose, because the middleware runs before the router does.

It knows routers as Starlette and FastAPI have them: an app or mount with ``routes``, each of which has ``matches``.
Where there is no such thing (a plain ASGI app), there is nothing to look ahead to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .asgi import Scope, route_path

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


def find_endpoint(scope: Scope) -> Endpoint:
    """The endpoint that the router of ``scope["app"]`` will choose."""
    routes = getattr(scope.get("app"), "routes", None)
    return UNKNOWN if routes is None else _search(routes, dict(scope), "")


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
        inner = getattr(route, "routes", None)
        if inner:
            return _search(inner, {**scope, **child}, template)
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
