"""Everything that can be chosen for a route, checked once, with defaults that are safe for payments."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypedDict

from ..bounds import MAX_SECONDS
from ..errors import InvalidInput
from .fingerprint import CANONICAL_LIMIT, FingerprintMode
from .keys import MAX_KEY_LENGTH

_MIB = 1024 * 1024
BODY_LIMIT = 64 * _MIB
_CHOICES = {
    "fingerprint": ("bytes", "json"),
    "in_flight": ("conflict", "wait", "accepted"),
    "on_exception": ("record", "release"),
    "on_crash": ("unknown", "rerun"),
    "on_invalid": ("release", "record"),
    "on_storage_error": ("pass", "reject"),
}
_SWITCHES = ("required", "exempt", "strict", "compat_keys", "per_origin", "credentials_required")
FORWARDED_HOSTS = frozenset({"x-forwarded-host", "x-original-host"})
"""Header fields by which a proxy names the host; an application may read them behind this middleware."""

FINGERPRINT_HEADERS = FORWARDED_HOSTS | frozenset({
    "if-match", "if-none-match", "if-unmodified-since", "content-range",
    "x-http-method-override", "x-http-method", "x-method-override",
    "x-forwarded-prefix", "x-original-url", "x-rewrite-url",
    "x-user", "x-username", "x-act-as", "on-behalf-of", "x-on-behalf-of", "impersonate-user", "x-impersonate-user",
    "sudo", "x-sudo", "x-account", "x-customer-id", "x-company-id", "x-merchant-id", "x-store-id", "x-workspace",
    "stripe-account",
    "x-tenant", "x-account-id", "x-org-id", "x-organization-id", "x-project-id", "x-workspace-id",
})  # fmt: skip
"""Header fields that change what a request does, or for which account."""

_ABOVE_ZERO = ("lease", "ttl")  # seconds
_FROM_ZERO = ("wait_seconds", "saga_wait")  # seconds
_SIZES = ("key_length", "body_limit", "response_limit", "canonical_limit")
_NAMES = ("methods", "fields", "ignored_fields", "unstored_headers", "fingerprint_headers")
_FINAL = range(200, 600)  # 1xx statuses come before the response
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "CONNECT"})
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class OptionOverrides(TypedDict, total=False):
    """The options as keyword arguments, for type checkers. See `IdempotencyOptions`."""

    methods: Collection[str]
    required: bool
    exempt: bool
    strict: bool
    compat_keys: bool
    key_length: int
    key_pattern: re.Pattern[str] | str | None
    fingerprint: FingerprintMode
    fields: Collection[str]
    ignored_fields: Collection[str]
    fingerprint_headers: Collection[str]
    per_origin: bool
    credentials_required: bool
    canonical_limit: int
    in_flight: Literal["conflict", "wait", "accepted"]
    wait_seconds: float
    lease: float
    ttl: float | None
    body_limit: int
    response_limit: int
    unstored_headers: Collection[str]
    release_statuses: Collection[int]
    on_exception: Literal["record", "release"]
    on_crash: Literal["unknown", "rerun"]
    on_invalid: Literal["release", "record"]
    on_storage_error: Literal["pass", "reject"]
    saga_wait: float
    saga_location: str | None
    saga_response: Callable[..., Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyOptions:
    """How requests under an idempotency key are dealt with. Times are in seconds, sizes in bytes.

    Attributes:
        methods: Methods that are looked at; others pass untouched.
        required: Whether a request without a key is refused with 400.
        exempt: Whether the route is left alone altogether.
        strict: Whether one key may be used for one method and path only: another one is answered with 422. Otherwise
            the same key means something else under each method and path.
        compat_keys: Whether keys may come without quotes.
        key_length: Characters a key may have.
        key_pattern: What a whole key must match besides; None: anything.
        fingerprint: What makes two requests under one key the same: ``bytes``, their bodies; ``json``, what JSON
            bodies mean. Multipart forms are compared part by part in both.
        fields: Of a JSON body, the only ones that are compared, by dotted paths. Needs ``json``.
        ignored_fields: Of a JSON body, the ones that are not compared. Needs ``json``.
        fingerprint_headers: Names of request headers that are compared too: those that change what a request does.
        per_origin: Whether scheme and host name count: the same key means something else at each host. False: for one
            application behind several names, whose clients may repeat a request at another one.
        credentials_required: Whether a request under a key is refused with 401, before its body is read, if no user is
            known and it carries no credentials.
        canonical_limit: Bytes of a JSON body up to which its meaning is looked at; longer ones are compared by bytes.
        in_flight: What a repetition gets while the first request runs: ``conflict``, 409; ``wait``, its response, or
            409 after `wait_seconds`; ``accepted``, 202.
        wait_seconds: How long ``wait`` waits.
        lease: How long a key is blocked if the process that holds it dies.
        ttl: How long a response is kept, counted from its end; None: the manager's ``default_ttl``.
        body_limit: Longest request body; a longer one is refused with 413. Unless this is set, a path that no route
            of the app matches takes 256 KiB, so that no file is written for it.
        response_limit: Longest response body that is kept; of a longer one the status and headers are.
        unstored_headers: Names of response headers to leave out of replays, besides those that always are.
        release_statuses: Statuses by which the handler says that nothing was done: the key is given back, the next
            request runs. By default those that ask for other credentials, or to come later. All other responses of
            the handler are stored, errors too. A 405, 421 or 426, by which HTTP says that nothing was done, is stored
            only if an endpoint that is a function made it.
        on_exception: What a handler's exception means: ``record``, that it may have done something: the error is
            stored; ``release``, that it did nothing: the key is given back.
        on_crash: What is done when the process that ran the handler died: ``unknown``, 409: nobody knows how far it
            came; ``rerun``, it is run again: for handlers that are idempotent by themselves.
        on_invalid: What is done when FastAPI refuses a request before it calls the endpoint, because a parameter is
            not valid: ``release``, the key is given back; ``record``, the refusal is stored, for routes whose
            dependencies have effects.
        on_storage_error: What is done while the storage is away: ``pass``, the request runs unprotected and is marked
            so; ``reject``, 503.
        saga_wait: How long a request waits for the saga that it started, or that carries it out.
        saga_location: Where a saga can be looked at, such as ``/v1/sagas/{saga_id}``; None: nowhere.
        saga_response: Makes the response from the `SagaOutcome`; None: a JSON document of it.
    """

    methods: Collection[str] = frozenset({"POST", "PATCH"})
    required: bool = False
    exempt: bool = False
    strict: bool = False
    compat_keys: bool = True
    key_length: int = MAX_KEY_LENGTH
    key_pattern: re.Pattern[str] | str | None = None
    fingerprint: FingerprintMode = "bytes"
    fields: Collection[str] = ()
    ignored_fields: Collection[str] = ()
    fingerprint_headers: Collection[str] = FINGERPRINT_HEADERS
    per_origin: bool = True
    credentials_required: bool = False
    canonical_limit: int = CANONICAL_LIMIT
    in_flight: Literal["conflict", "wait", "accepted"] = "conflict"
    wait_seconds: float = 10.0
    lease: float = 30.0
    ttl: float | None = None
    body_limit: int = BODY_LIMIT
    response_limit: int = _MIB
    unstored_headers: Collection[str] = ()
    release_statuses: Collection[int] = frozenset({401, 403, 429})
    on_exception: Literal["record", "release"] = "record"
    on_crash: Literal["unknown", "rerun"] = "unknown"
    on_invalid: Literal["release", "record"] = "release"
    on_storage_error: Literal["pass", "reject"] = "pass"
    saga_wait: float = 20.0
    saga_location: str | None = None
    saga_response: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _require(name, getattr(self, name) in choices, f"one of {', '.join(choices)}", getattr(self, name))
        for name in _SWITCHES:
            _require(name, isinstance(getattr(self, name), bool), "True or False", getattr(self, name))
        for name in _ABOVE_ZERO + _FROM_ZERO:
            self._check_seconds(name)
        for name in _SIZES:
            size, least = getattr(self, name), 1 if name == "key_length" else 0
            _require(name, type(size) is int and size >= least, f"a whole number from {least} on", size)
        self._settle_names()
        self._settle_statuses()
        self._settle_pattern()
        self._check_saga()

    def replace(self, **overrides: Any) -> IdempotencyOptions:
        """These options with others in their place.

        Raises:
            InvalidInput: An option does not exist or makes no sense; it is named.
        """
        known = {field.name for field in fields(self)}
        for name in overrides:
            if name not in known:
                raise InvalidInput(name, f"there is no such option; there are: {', '.join(sorted(known))}")
        return replace(self, **overrides) if overrides else self

    def _check_seconds(self, name: str) -> None:
        value = getattr(self, name)
        if name == "ttl" and value is None:
            return
        fits = (
            type(value) in {int, float} and value <= MAX_SECONDS and (value > 0 or (value == 0 and name in _FROM_ZERO))
        )
        least = "from 0 on" if name in _FROM_ZERO else "more than 0"
        _require(name, fits, f"seconds, {least}, {MAX_SECONDS:.0e} at most", value)

    def _settle_names(self) -> None:
        for name in _NAMES:
            given = getattr(self, name)
            fits = isinstance(given, Collection) and not isinstance(given, str | bytes | dict)
            fits = fits and all(isinstance(item, str) and item for item in given)
            _require(name, fits, "a collection of names, such as {'POST'} or ('order.id',)", given)
        for method in self.methods:
            fits = _METHOD.fullmatch(method) is not None and method.upper() not in SAFE_METHODS
            _require("methods", fits, "a collection of HTTP methods that are not safe, such as {'POST', 'PUT'}", method)
        for name in ("fields", "ignored_fields"):
            paths = tuple(sorted(set(getattr(self, name))))
            _require(name, all(all(path.split(".")) for path in paths), "dotted paths, such as 'order.id'", paths)
            _require(name, not paths or self.fingerprint == "json", "empty, or fingerprint='json' beside it", paths)
            object.__setattr__(self, name, paths)
        object.__setattr__(self, "methods", frozenset(method.upper() for method in self.methods))
        for name in ("unstored_headers", "fingerprint_headers"):
            object.__setattr__(self, name, frozenset(header.lower() for header in getattr(self, name)))

    def _settle_statuses(self) -> None:
        given = self.release_statuses
        fits = isinstance(given, Collection) and not isinstance(given, str | bytes | dict)
        fits = fits and all(type(status) is int and status in _FINAL for status in given)
        _require("release_statuses", fits, "a collection of HTTP statuses from 200 to 599", given)
        object.__setattr__(self, "release_statuses", frozenset(given))

    def _settle_pattern(self) -> None:
        if isinstance(self.key_pattern, str):
            try:
                object.__setattr__(self, "key_pattern", re.compile(self.key_pattern))
            except re.error as error:
                raise InvalidInput("key_pattern", f"is no regular expression: {error}") from error
        pattern = self.key_pattern
        fits = pattern is None or (isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str))
        _require("key_pattern", fits, "a regular expression for text, or None", pattern)

    def _check_saga(self) -> None:
        location = self.saga_location
        fits = location is None or (isinstance(location, str) and location.isascii() and location.isprintable())
        _require("saga_location", fits, "a URI reference in ASCII with {saga_id} in it, or None", location)
        _require("saga_location", location is None or "{saga_id}" in location, "a text with {saga_id} in it", location)
        _require("saga_response", self.saga_response is None or callable(self.saga_response), "callable", "what it is")


def _require(field: str, fits: object, what: str, given: Any) -> None:
    if not fits:
        raise InvalidInput(field, f"must be {what}, not {given!r:.120}")
