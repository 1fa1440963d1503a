"""What is asked of the middleware, route by route: options, rules by path, and a decorator for endpoints. Pure.

The options of one request are those of the middleware, changed by each rule that matches its path, in their order,
and last by the decorator of its endpoint: the nearer word wins. An exempt path is a word for all paths below it, so it
loses to a decorator and to a rule within it; an exempt path that is a mere default loses to every rule.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

from ..errors import InvalidInput
from .options import SAFE_METHODS, IdempotencyOptions, OptionOverrides
from .path_patterns import compile_pattern

EXEMPT_PATHS = frozenset({"/health", "/healthz", "/ready", "/metrics", "/docs", "/redoc", "/openapi.json"})
ATTRIBUTE = "__dotmac_tasks_idempotency__"


@dataclass(frozen=True, slots=True, eq=False)
class RouteOverrides:
    """Some options by name, checked when they are written down."""

    values: Mapping[str, Any]
    inner: RouteOverrides | None = None
    """Those of the inner decorator of the same endpoint, which these include."""

    def __post_init__(self) -> None:
        IdempotencyOptions(fingerprint="json").replace(**self.values)  # which the fields to compare need

    def has(self, others: RouteOverrides) -> bool:
        """Whether these are the others, or include them."""
        return self is others or (self.inner is not None and self.inner.has(others))


_EXEMPT = RouteOverrides({"exempt": True})


class RouteRule:
    """Options for the paths that match a pattern.

    ``*`` in the pattern stands for anything within one segment, ``**`` for any number of whole segments; ``{name}``
    and ``{name:path}`` mean the same, so that patterns can be written like routes. A method in front limits the rule
    to it and adds it to the methods that are looked at there: ``"PUT /files/**"``.

    Args:
        pattern: The whole path, as the app's routes have it, or as its client sees it, below a ``root_path``: a rule
            that a proxy's prefix put out of force would be missed by nobody until a request is carried out twice.
        **overrides: Fields of `IdempotencyOptions`.

    Raises:
        InvalidInput: Naming the pattern or the option.
    """

    def __init__(self, pattern: str, **overrides: Unpack[OptionOverrides]) -> None:
        self.pattern = pattern
        self._compiled = compile_pattern(pattern)
        self._given = RouteOverrides(overrides)
        method = self._compiled.method
        if method in SAFE_METHODS and not overrides.get("exempt"):
            raise InvalidInput(
                "pattern", f"{method} requests are safe and always pass untouched, so {pattern!r} is void"
            )
        implied = {} if method is None or method in SAFE_METHODS else {"methods": frozenset({method})}
        self.overrides = RouteOverrides(implied | overrides)

    def __repr__(self) -> str:
        return f"RouteRule({self.pattern!r}, {', '.join(f'{k}={v!r}' for k, v in self._given.values.items())})"

    def matches(self, method: str, *paths: str) -> bool:
        """Whether the rule is meant for this request, which may have several paths."""
        return self._compiled.method in {None, method} and any(map(self._compiled.matches, paths))

    def is_within(self, *paths: str) -> bool:
        """Whether the pattern begins with one of these paths, so that it is a nearer word than the path alone."""
        literal = self._compiled.literal_path + "/"
        return any(literal.startswith(path + "/") for path in paths)


class Routes:
    """The options of each request.

    Args:
        base: Where nothing else is said.
        rules: In the order in which they change the base; a later one wins.
        exempt_paths: Paths that are exempt with all that is below them, as the app's routes have them; None:
            `EXEMPT_PATHS`. These yield to every rule that matches, given ones to the rules within them.

    Raises:
        InvalidInput: A rule contradicts the base, or an exempt path is none.
    """

    def __init__(
        self,
        base: IdempotencyOptions,
        rules: Sequence[RouteRule] = (),
        exempt_paths: Collection[str] | None = None,
    ) -> None:
        self._base = base
        self._rules = tuple(rules)
        self._exempt_by_default = exempt_paths is None
        self._exempt = _checked_paths(EXEMPT_PATHS if exempt_paths is None else exempt_paths)
        self._below_exempt = tuple(f"{path}/" for path in self._exempt)
        # As many as there are combinations of rules and endpoints; each rule with the base is tried out at once.
        self._made: dict[tuple[RouteOverrides, ...], IdempotencyOptions] = {
            (rule.overrides,): base.replace(**rule.overrides.values) for rule in self._rules
        }

    def options(self, method: str, *paths: str, endpoint: RouteOverrides | None = None) -> IdempotencyOptions:
        """The options for a request.

        Args:
            method: In capitals.
            *paths: As the client sees it, and as the app's routes have it, where they differ.
            endpoint: What the decorator of the endpoint says, where the endpoint is known.

        Raises:
            InvalidInput: Rules that are right by themselves contradict each other here.
        """
        rules = [rule for rule in self._rules if rule.matches(method, *paths)]
        applied = [rule.overrides for rule in rules]
        if endpoint is not None:
            applied.append(endpoint)
        elif self._is_exempt(rules, paths):
            applied.append(_EXEMPT)
        chain = tuple(applied)
        options = self._made.get(chain)
        if options is None:
            merged: dict[str, Any] = {}
            for overrides in chain:
                merged.update(overrides.values)
            options = self._made[chain] = self._base.replace(**merged)
        return options

    def _is_exempt(self, rules: Sequence[RouteRule], paths: Sequence[str]) -> bool:
        path = paths[-1]
        if path not in self._exempt and not path.startswith(self._below_exempt):
            return False
        if self._exempt_by_default:
            return not rules
        root = paths[0].removesuffix(path)
        exempt = [item for item in self._exempt if path == item or path.startswith(f"{item}/")]
        around = [*exempt, *(root + item for item in exempt)]
        return not any(rule.is_within(*around) for rule in rules)


def is_protected(method: str, options: IdempotencyOptions, endpoint: RouteOverrides | None) -> bool:
    """Whether a request's key is looked at.

    A decorator that names no methods is meant for those of its endpoint. Safe methods are never looked at.
    """
    if options.exempt or method in SAFE_METHODS:
        return False
    return method in options.methods or (endpoint is not None and "methods" not in endpoint.values)


def _checked_paths(paths: Collection[str]) -> frozenset[str]:
    if isinstance(paths, str | bytes) or not all(isinstance(path, str) and path.startswith("/") for path in paths):
        raise InvalidInput("exempt_paths", f"must be a collection of paths that begin with /, not {paths!r:.120}")
    return frozenset(path.rstrip("/") for path in paths)


def overrides_of(endpoint: Any, method: str | None = None) -> RouteOverrides | None:
    """What the decorator of an endpoint says; None: it has none.

    Args:
        endpoint: A function, a method, a partial of one, a class or an object with ``__call__``.
        method: Of the request. An endpoint with a method of its own for it (``post``, as Starlette's `HTTPEndpoint`
            has) may be decorated there.
    """
    while isinstance(endpoint, partial) and not hasattr(endpoint, ATTRIBUTE):
        endpoint = endpoint.func
    own = getattr(endpoint, method.lower(), None) if method else None
    called = getattr(type(endpoint), "__call__", None)  # noqa: B004 - it is not asked whether, but what is called
    for holder in (own, endpoint, called):
        found = getattr(holder, ATTRIBUTE, None)
        if isinstance(found, RouteOverrides):
            return found
    return None
