"""Options: their checks, rules by path, and the decorator for endpoints."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, cast

import pytest

from dotmac.tasks.errors import InvalidInput, MiddlewareNotInstalled
from dotmac.tasks.http.decorator import idempotent_route
from dotmac.tasks.http.middleware import BackgroundOperationsMiddleware
from dotmac.tasks.http.options import IdempotencyOptions, OptionOverrides
from dotmac.tasks.http.routes import RouteOverrides, RouteRule, Routes, is_protected, overrides_of
from dotmac.tasks.http.setup import MiddlewareOptions

DEFAULTS = IdempotencyOptions()


def test_the_defaults_are_safe() -> None:
    assert DEFAULTS.methods == {"POST", "PATCH"}
    assert not DEFAULTS.required
    assert DEFAULTS.in_flight == "conflict"
    assert DEFAULTS.on_exception == "record"
    assert DEFAULTS.on_crash == "unknown"
    assert DEFAULTS.on_storage_error == "pass"
    assert DEFAULTS.on_invalid == "release"
    assert DEFAULTS.release_statuses == {401, 403, 429}  # nothing but: 5xx may have done something


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("methods", "POST"),
        ("methods", ["PO ST"]),
        ("methods", [""]),
        ("methods", [b"POST"]),
        ("methods", {"POST": 1}),
        ("methods", {"POST", "get"}),
        ("required", 1),
        ("exempt", None),
        ("strict", "yes"),
        ("compat_keys", 0),
        ("key_length", 0),
        ("key_length", 1.5),
        ("key_length", True),
        ("key_pattern", "["),
        ("key_pattern", 5),
        ("key_pattern", re.compile(b"a")),
        ("fingerprint", "xml"),
        ("fields", "amount"),
        ("fields", ["a..b"]),
        ("ignored_fields", ["."]),
        ("canonical_limit", -1),
        ("in_flight", "queue"),
        ("wait_seconds", -1),
        ("wait_seconds", float("inf")),
        ("lease", 0),
        ("lease", True),
        ("lease", "30"),
        ("ttl", 0),
        ("ttl", float("nan")),
        ("body_limit", None),
        ("response_limit", 1.0),
        ("unstored_headers", "x-a"),
        ("release_statuses", 503),
        ("release_statuses", [100]),
        ("release_statuses", ["503"]),
        ("release_statuses", b"abc"),
        ("on_exception", "raise"),
        ("on_crash", "retry"),
        ("on_invalid", "drop"),
        ("on_storage_error", "fail"),
        ("saga_wait", -0.1),
        ("saga_location", "/sagas"),
        ("saga_location", "/sägas/{saga_id}"),
        ("saga_location", "/sagas/{saga_id}\r\n"),
        ("saga_location", 5),
        ("saga_response", "module:function"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: ") as refused:
        DEFAULTS.replace(fingerprint=value) if field == "fingerprint" else DEFAULTS.replace(
            fingerprint="json", **{field: value}
        )
    assert refused.value.field == field


@pytest.mark.parametrize("field", ["fields", "ignored_fields"])
def test_members_can_be_chosen_of_json_only(field: str) -> None:
    with pytest.raises(InvalidInput, match="fingerprint='json' beside it"):
        IdempotencyOptions(**{field: ["a"]})  # type: ignore[arg-type]


def test_type_checkers_see_every_option() -> None:
    assert list(OptionOverrides.__annotations__) == [field.name for field in fields(IdempotencyOptions)]
    arguments = inspect.signature(BackgroundOperationsMiddleware).parameters
    assert ["app", "manager", *MiddlewareOptions.__annotations__] == list(arguments)


def test_an_unknown_option_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"^leese: there is no such option; there are: .*, lease, "):
        DEFAULTS.replace(leese=5)


def test_options_in_their_settled_form() -> None:
    options = IdempotencyOptions(
        methods=["post", "Put"],
        fingerprint="json",
        fields=["b.c", "a", "a"],
        unstored_headers={"X-Shard"},
        release_statuses=[503, 503],
        key_pattern="[0-9]+",
        ttl=None,
        wait_seconds=0,
        saga_location="/sagas/{saga_id}",
        saga_response=print,
    )
    assert options.methods == {"POST", "PUT"}
    assert options.fields == ("a", "b.c")
    assert options.unstored_headers == {"x-shard"}
    assert options.release_statuses == {503}
    assert isinstance(options.key_pattern, re.Pattern)
    assert options.replace() is options
    assert hash(options) == hash(options.replace(required=False))


def test_a_rule_changes_the_options_of_its_paths_only() -> None:
    routes = Routes(DEFAULTS, [RouteRule("/payments/*", required=True, lease=5)])
    assert routes.options("POST", "/payments/1") == DEFAULTS.replace(required=True, lease=5)
    assert routes.options("POST", "/orders") == DEFAULTS


def test_a_rule_can_be_limited_to_a_method() -> None:
    routes = Routes(DEFAULTS, [RouteRule("PUT /files/**", methods={"PUT"})])
    assert routes.options("PUT", "/files/a").methods == {"PUT"}
    assert routes.options("POST", "/files/a") == DEFAULTS


def test_a_rule_for_a_method_protects_that_method() -> None:
    routes = Routes(DEFAULTS, [RouteRule("PUT /files/**", required=True)])
    assert is_protected("PUT", routes.options("PUT", "/files/a"), None)
    assert not is_protected("PUT", routes.options("PUT", "/other"), None)
    assert not is_protected("DELETE", routes.options("DELETE", "/files/a"), None)


def test_a_rule_for_a_safe_method_is_refused_unless_it_exempts() -> None:
    with pytest.raises(InvalidInput, match=r"^pattern: GET requests"):
        RouteRule("GET /files/**", required=True)
    RouteRule("GET /files/**", exempt=True)


@pytest.mark.parametrize(
    ("values", "method", "protected"),
    [
        ({"required": True}, "DELETE", True),
        ({"required": True}, "GET", False),
        ({"required": True, "methods": {"PUT"}}, "DELETE", False),
        ({"exempt": True}, "POST", False),
        (None, "DELETE", False),
        (None, "POST", True),
    ],
)
def test_a_decorator_without_methods_is_meant_for_those_of_its_endpoint(
    values: dict[str, Any] | None, method: str, protected: bool
) -> None:
    overrides = None if values is None else RouteOverrides(values)
    assert is_protected(method, Routes(DEFAULTS).options(method, "/", endpoint=overrides), overrides) is protected


@pytest.mark.parametrize(
    ("exempt_paths", "rules", "paths", "exempt"),
    [
        (None, [], ["/docs"], True),
        (None, [], ["/docs/oauth2-redirect"], True),
        (None, [], ["/docsearch"], False),
        (None, [], ["/api/ready", "/ready"], True),
        (None, ["/ready/**"], ["/ready/x"], False),
        (None, ["/**"], ["/ready/x"], False),
        (None, ["/other"], ["/ready/x"], True),
        ({"/hooks/"}, [], ["/docs"], False),
        ({"/hooks/"}, [], ["/hooks"], True),
        ({"/hooks"}, ["/**"], ["/hooks/a"], True),
        ({"/hooks"}, ["/hooks/**"], ["/hooks/a"], False),
        ({"/hooks"}, ["/**", "/hooks/a"], ["/hooks/a"], False),
        ({"/hooks/a"}, ["/hooks/**"], ["/hooks/a/b"], True),
        ({"/hooks"}, ["/api/hooks/**"], ["/api/hooks/a", "/hooks/a"], False),
        ({"/hooks", "/hooks/a"}, ["/hooks/a/*"], ["/hooks/a/b"], False),
    ],
)
def test_an_exempt_path_yields_to_a_nearer_rule(
    exempt_paths: set[str] | None, rules: list[str], paths: list[str], exempt: bool
) -> None:
    routes = Routes(DEFAULTS, [RouteRule(rule, required=True) for rule in rules], exempt_paths)
    assert routes.options("POST", *paths).exempt is exempt


@pytest.mark.parametrize("exempt_paths", [None, {"/docs"}])
def test_an_exempt_path_yields_to_a_decorator(exempt_paths: set[str] | None) -> None:
    routes = Routes(DEFAULTS, exempt_paths=exempt_paths)
    assert not routes.options("POST", "/docs", endpoint=RouteOverrides({"required": True})).exempt


def test_the_nearer_word_wins() -> None:
    routes = Routes(
        DEFAULTS.replace(lease=1, ttl=1, wait_seconds=1, saga_wait=1),
        [RouteRule("/**", ttl=2, wait_seconds=2, saga_wait=2), RouteRule("/a/*", wait_seconds=3, saga_wait=3)],
    )

    @idempotent_route(saga_wait=4)
    def endpoint() -> None: ...

    options = routes.options("POST", "/a/b", endpoint=overrides_of(endpoint))
    assert (options.lease, options.ttl, options.wait_seconds, options.saga_wait) == (1, 2, 3, 4)


def test_the_same_rules_give_the_same_object() -> None:
    routes = Routes(DEFAULTS, [RouteRule("/a/**", lease=2), RouteRule("/a/b/**", ttl=3)])
    assert routes.options("POST", "/a/x") is routes.options("PATCH", "/a/y")
    assert routes.options("POST", "/a/b/x") is routes.options("POST", "/a/b")
    assert routes.options("POST", "/a/b/x") is not routes.options("POST", "/a/x")


def test_a_rule_with_an_option_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^lease: "):
        RouteRule("/a", lease=-1)
    with pytest.raises(InvalidInput, match=r"^leese: "):
        RouteRule("/a", **cast("OptionOverrides", {"leese": 1}))


def test_a_rule_may_need_what_the_base_has_and_is_tried_out_with_it_at_once() -> None:
    rule = RouteRule("/a", fields=["amount"])
    assert Routes(DEFAULTS.replace(fingerprint="json"), [rule]).options("POST", "/a").fields == ("amount",)
    with pytest.raises(InvalidInput, match=r"^fields: "):
        Routes(DEFAULTS, [rule])


def test_rules_that_contradict_each_other_are_refused_where_they_meet() -> None:
    json, plain = RouteRule("/a/**", fingerprint="json", fields=["x"]), RouteRule("/a/b", fingerprint="bytes")
    routes = Routes(DEFAULTS, [json, plain])
    assert routes.options("POST", "/a/c").fields == ("x",)
    with pytest.raises(InvalidInput, match=r"^fields: "):
        routes.options("POST", "/a/b")


def test_a_rule_shows_what_it_says() -> None:
    assert repr(RouteRule("/a/*", required=True)) == "RouteRule('/a/*', required=True)"


def plain() -> None: ...


async def asynchronous() -> None: ...


class Callable1:
    def __call__(self) -> None: ...


@pytest.mark.parametrize("endpoint", [plain, asynchronous, Callable1(), Callable1, functools.partial(plain)])
def test_an_endpoint_stays_what_it_is_and_has_options(endpoint: Any) -> None:
    assert overrides_of(endpoint) is None
    decorated = idempotent_route(lease=7)(endpoint)
    try:
        assert decorated is endpoint
        found = overrides_of(endpoint)
        assert found is not None
        assert found.values == {"lease": 7}
    finally:
        del endpoint.__dotmac_tasks_idempotency__


@pytest.mark.parametrize("endpoint", [plain, asynchronous, functools.partial(plain)])
def test_an_endpoint_that_checks_its_key_looks_like_the_endpoint(endpoint: Any) -> None:
    decorated: Any = idempotent_route(required=True)(endpoint)
    found = overrides_of(decorated)
    assert found is not None
    assert found.values == {"required": True}
    assert overrides_of(endpoint) is None
    assert inspect.signature(decorated) == inspect.signature(endpoint)
    assert inspect.iscoroutinefunction(decorated) is inspect.iscoroutinefunction(endpoint)
    with pytest.raises(MiddlewareNotInstalled):
        decorated() if endpoint is not asynchronous else decorated().send(None)


def test_an_outer_decorator_takes_the_check_of_a_key_away() -> None:
    @idempotent_route(required=False)
    @idempotent_route(required=True)
    def endpoint() -> int:
        return 1

    assert endpoint() == 1


@idempotent_route(lease=7)
def decorated() -> None: ...


class Endpoint:
    @idempotent_route(lease=7)
    def __call__(self) -> None: ...

    @idempotent_route(lease=8)
    def post(self) -> None: ...

    @idempotent_route(lease=7)
    def method(self) -> None: ...


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper() -> Any: ...

    return wrapper


@pytest.mark.parametrize(
    "endpoint",
    [
        wrapped(decorated),
        functools.partial(functools.partial(decorated)),
        Endpoint(),
        Endpoint().method,
        Endpoint.method,
    ],
)
def test_options_are_found_behind_what_wraps_an_endpoint(endpoint: Any) -> None:
    found = overrides_of(endpoint)
    assert found is not None
    assert found.values == {"lease": 7}


def test_a_class_may_be_decorated_method_by_method() -> None:
    found = overrides_of(Endpoint, "POST")
    assert found is not None
    assert found.values == {"lease": 8}
    assert overrides_of(Endpoint, "PATCH") is None
    assert overrides_of(Endpoint) is None


def test_of_two_decorators_the_outer_one_wins() -> None:
    @idempotent_route(lease=1, ttl=1)
    @idempotent_route(lease=2, saga_wait=2)
    def endpoint() -> None: ...

    found = overrides_of(endpoint)
    assert found is not None
    assert found.values == {"lease": 1, "ttl": 1, "saga_wait": 2}


def test_a_wrong_option_is_refused_where_the_decorator_stands() -> None:
    with pytest.raises(InvalidInput, match=r"^in_flight: "):
        idempotent_route(**cast("OptionOverrides", {"in_flight": "queue"}))


def test_what_takes_no_attribute_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^endpoint: builtin_function_or_method takes no attribute"):
        idempotent_route(required=True)(len)
