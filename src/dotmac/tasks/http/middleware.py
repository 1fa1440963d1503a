"""Makes requests idempotent, in any ASGI app.

A request with an idempotency key claims it before the app sees the request, so of all requests with this key, at any
process, one reaches the app. Its response is stored, and the others get it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, cast

import anyio

from ..errors import BadIdempotencyKey, InvalidInput
from ..facade.claims import KeyedRequest
from ..runtime.whereabouts import process_name
from . import problems
from .admission import Gate
from .asgi import ClientGone, Reply, header_values, route_path
from .body import BodyTooLarge, BufferedBody, Refusal, announced_length
from .endpoints import UNKNOWN, find_endpoint
from .fingerprint import Fingerprint, RequestHead
from .keys import parse_idempotency_key
from .lifespan import RuntimeLife
from .options import SAFE_METHODS, IdempotencyOptions
from .records import RecordBook
from .routes import RouteRule, Routes, is_protected, overrides_of
from .scope import Identity, credentials_digest, default_identity, full_path, record_key
from .state import RequestState, is_handled, keep_state

if TYPE_CHECKING:
    import re

    from ..manager import BackgroundOperationsManager
    from .asgi import ASGIApp, Receive, Scope, Send
    from .endpoints import Endpoint
    from .problems import Problem
    from .sealing import ResponseCodec

_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


class BackgroundOperationsMiddleware:
    """An ASGI middleware.

    Args:
        app: The app inside.
        manager: Whose storage has the keys. It is started and stopped with the app, unless the app does that itself.
        exempt_paths: Paths that are passed on untouched, with everything below them, unless a rule within them or the
            endpoint's decorator says otherwise. None: `EXEMPT_PATHS`, which yield to every rule that matches.
        idempotency_header: The field that carries the key.
        cache_hit_header: The field that marks a response that was not made for the request which gets it.
        options: For all routes; single ones are changed by `routes` and by `idempotent_route`.
        routes: Rules for paths, in the order in which they change the options; an endpoint's decorator comes last.
        identity: Says whose request it is, from its scope: an `Identity`, or None for nobody's; may be async.
            None: `default_identity`, which believes request state and the headers ``X-Tenant-ID`` and ``X-User-ID``.
        codec: Seals responses at rest, see `FernetCodec`.

    Raises:
        InvalidInput: An argument makes no sense; the error names it.
    """

    def __init__(  # noqa: PLR0913 - the seed's signature, and independent options
        self,
        app: ASGIApp,
        manager: BackgroundOperationsManager,
        *,
        exempt_paths: Collection[str] | None = None,
        idempotency_header: str = "Idempotency-Key",
        cache_hit_header: str = "Idempotency-Replayed",
        options: IdempotencyOptions | None = None,
        routes: Sequence[RouteRule] = (),
        identity: Callable[[Scope], Any] = default_identity,
        codec: ResponseCodec | None = None,
    ) -> None:
        self.app = app
        self.manager = manager
        self._header = _checked_name("idempotency_header", idempotency_header)
        self._field = self._header.lower().encode()
        self._marker = (_checked_name("cache_hit_header", cache_hit_header).lower().encode(), b"true")
        self._routes = Routes(options or IdempotencyOptions(), routes, exempt_paths)
        self._identity = identity
        self._codec = codec
        self._life = RuntimeLife(manager)
        self._gate = Gate(app, self._life, owner=process_name())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] == "lifespan":
            await self._life.run(self.app, scope, receive, send)
            return
        if scope["type"] != "http" or is_handled(scope):
            await self.app(scope, receive, send)
            return
        method: str = scope["method"]
        endpoint = UNKNOWN if method in SAFE_METHODS else find_endpoint(scope)
        path = full_path(scope)
        paths = (path, route_path(scope)) if scope.get("root_path") else (path,)
        overrides = overrides_of(endpoint.function, method)
        options = self._routes.options(method, *paths, endpoint=overrides)
        state = RequestState(self.manager, options, self._header, path, self._identify)
        keep_state(scope, state)
        inside = self.app
        if is_protected(method, options, overrides):
            try:
                state.key = self._key_of(scope, options)
                if state.key is not None:
                    state.identity = await self._identify(scope, endpoint)
            except InvalidInput as error:
                inside = Reply(problems.identity_malformed(str(error)).messages())
            except _Refused as refused:
                inside = Refusal(refused.problem.messages())
        if state.identity is None:
            await inside(scope, receive, send)
        else:
            await self._under_key(state, state.identity, endpoint, (scope, receive, send))

    async def _under_key(
        self, state: RequestState, identity: Identity, endpoint: Endpoint, call: tuple[Scope, Receive, Send]
    ) -> None:
        scope, receive, send = call
        options, method, path = state.options, scope["method"], state.path
        credentials = credentials_digest(scope["headers"])
        name = record_key(identity, method, path, state.key or "", strict=options.strict, credentials=credentials)
        state.record_key = name
        with BufferedBody() as body:
            fingerprint = _fingerprint(scope, path, options)
            try:
                if announced_length(scope) > options.body_limit:  # nobody need send it to hear that
                    raise BodyTooLarge(unread=True)
                await body.fill(receive, fingerprint.update, options.body_limit)
            except ClientGone:
                return
            except BodyTooLarge as error:
                answer = Refusal if error.unread else Reply
                await answer(problems.body_too_large(options.body_limit).messages())(scope, receive, send)
                return
            if fingerprint.is_costly:
                fingerprinted = await anyio.to_thread.run_sync(fingerprint.finish)
            else:
                fingerprinted = fingerprint.finish()
            request = KeyedRequest(
                record_key=name,
                tenant_id=identity.tenant_id or "",
                user_id=identity.user_id,
                operation_type=f"{method} {endpoint.template}" if endpoint.template else method,
                fingerprint=fingerprinted,
                ttl=options.ttl or self.manager.settings.default_ttl,
                lease=options.lease,
            )
            book = RecordBook(name, self._codec, self._marker, options.unstored_headers)
            inside = await self._gate.admit(state, request, book, scope)
            await inside(scope, body.replayed(receive), send)

    def _key_of(self, scope: Scope, options: IdempotencyOptions) -> str | None:
        lines = header_values(scope, self._field)
        if not lines:
            if options.required:
                raise _Refused(problems.key_missing(self._header))
            return None
        try:
            return parse_idempotency_key(
                lines,
                compat=options.compat_keys,
                most=options.key_length,
                pattern=cast("re.Pattern[str] | None", options.key_pattern),  # compiled by the options
                header=self._header,
            )
        except BadIdempotencyKey as error:
            raise _Refused(problems.key_malformed(str(error))) from error

    async def _identify(self, scope: Scope, endpoint: Endpoint = UNKNOWN) -> Identity:
        # The router that knows the path's parameters comes after us.
        seen = {**scope, "path_params": {**endpoint.parameters, **scope.get("path_params", {})}}
        identity = self._identity(seen)
        if not isinstance(identity, Identity) and inspect.isawaitable(identity):
            identity = await identity
        if identity is None:
            return Identity()
        if not isinstance(identity, Identity):
            raise TypeError(f"identity must give an Identity or None, not a {type(identity).__name__}")
        return identity


class _Refused(Exception):
    """The request cannot be dealt with as it is."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.slug)
        self.problem = problem


def _fingerprint(scope: Scope, path: str, options: IdempotencyOptions) -> Fingerprint:
    content_type = b",".join(header_values(scope, b"content-type"))
    head = RequestHead(scope["method"], path, scope.get("query_string", b""), content_type)
    return Fingerprint(
        head,
        options.fingerprint,
        chosen=options.fields,
        ignored=options.ignored_fields,
        limit=options.canonical_limit,
    )


def _checked_name(field: str, name: str) -> str:
    if not isinstance(name, str) or not name or not _TOKEN.issuperset(name.lower()):
        raise InvalidInput(field, f"must be the name of an HTTP header, such as 'Idempotency-Key', not {name!r:.60}")
    return name
