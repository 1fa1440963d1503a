"""Makes requests idempotent, in any ASGI app.

A request with an idempotency key claims it before the app sees the request, so of all requests with this key, at any
process, one reaches the app. Its response is stored, and the others get it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ..errors import BadIdempotencyKey, InvalidInput
from ..facade.claims import KeyedRequest
from ..runtime.whereabouts import process_name
from . import problems
from .admission import Gate
from .asgi import ClientGone, Reply, header_values, route_path
from .authority import origin_of
from .body import IN_MEMORY, BodyTooLarge, BufferedBody, Refusal, announced_length
from .credentials import CREDENTIAL_HEADERS, with_cookies
from .decorator import present_scope
from .endpoints import NOWHERE, find_endpoint
from .fingerprint import Fingerprint, RequestHead
from .identity import Sender, SenderRules
from .keys import parse_idempotency_key
from .lifespan import RuntimeLife
from .options import BODY_LIMIT, FORWARDED_HOSTS, SAFE_METHODS, IdempotencyOptions
from .reach import router_ahead, watch
from .records import RecordBook
from .routes import RouteRule, Routes, is_protected, overrides_of
from .scope import Target, default_identity, full_path, record_key
from .state import RequestState, is_handled, keep_state
from .threads import in_thread

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
        identity: Says whose request it is, from its scope: an `Identity`, or None if the sender is unknown; may be
            async. By default `default_identity`.
        credentials: What stands for a user that `identity` does not name: names of header fields, or a callable that
            takes the scope and gives text, bytes or None; may be async. By default `CREDENTIAL_HEADERS`.
        session_cookies: Names of the cookies that stand for such a user too; empty: no cookie means a user. None: not
            known. Then a repetition whose cookies differ is refused where neither user nor credentials are known.
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
        credentials: Collection[str] | Callable[[Scope], Any] = CREDENTIAL_HEADERS,
        session_cookies: Collection[str] | None = None,
        codec: ResponseCodec | None = None,
    ) -> None:
        self.app = app
        self.manager = manager
        self._header = _checked_name("idempotency_header", idempotency_header)
        self._field = self._header.lower().encode()
        self._marker = (_checked_name("cache_hit_header", cache_hit_header).lower().encode(), b"true")
        self._routes = Routes(options or IdempotencyOptions(), routes, exempt_paths)
        self._senders = SenderRules(identity, credentials, session_cookies)
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
        outer = present_scope.set(scope)
        try:
            await self._serve(scope, receive, send)
        finally:
            present_scope.reset(outer)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        method: str = scope["method"]
        router = None if method in SAFE_METHODS else router_ahead(self.app, scope)
        endpoint = find_endpoint(scope, router)
        path = full_path(scope)
        paths = (path, route_path(scope)) if scope.get("root_path") else (path,)
        overrides = overrides_of(endpoint.function, method)
        options = self._routes.options(method, *paths, endpoint=overrides)
        reach = watch(scope, router)
        state = RequestState(self.manager, options, self._header, path, self._senders.identify, reach, overrides)
        keep_state(scope, state)
        inside, asked = self.app, None
        if is_protected(method, options, overrides):
            try:
                state.key = self._key_of(scope, options)
                if state.key is not None:
                    asked = await self._asked(scope, endpoint, state)
            except InvalidInput as error:
                inside = Reply(problems.identity_malformed(str(error)).messages())
            except _Refused as refused:
                inside = Refusal(refused.problem.messages())
        if asked is None:
            await inside(scope, receive, send)
        else:
            await self._under_key(state, asked, endpoint, (scope, receive, send))

    async def _asked(self, scope: Scope, endpoint: Endpoint, state: RequestState) -> _Asked:
        try:
            origin = origin_of(scope, endpoint.host) if state.options.per_origin else ""
        except InvalidInput as error:
            raise _Refused(problems.host_malformed(str(error))) from error
        sender = await self._senders.sender(scope, endpoint)
        if state.options.credentials_required and sender.identity.user_id is None and sender.credentials is None:
            raise _Refused(problems.credentials_missing())
        state.identity = sender.identity
        state.cookies, state.session = sender.cookies, scope.get("session")
        return _Asked(Target(origin, scope["method"], state.path), sender)

    async def _under_key(
        self, state: RequestState, asked: _Asked, endpoint: Endpoint, call: tuple[Scope, Receive, Send]
    ) -> None:
        scope, receive, send = call
        options, identity, method = state.options, asked.sender.identity, asked.target.method
        name = record_key(
            identity, asked.target, state.key or "", strict=options.strict, credentials=asked.sender.credentials
        )
        state.record_key = name
        limit = options.body_limit
        if endpoint is NOWHERE and limit == BODY_LIMIT:
            limit = IN_MEMORY
        with BufferedBody() as body:
            fingerprint = _fingerprint(scope, asked, options)
            try:
                if announced_length(scope) > limit:  # known before the client sends the body
                    raise BodyTooLarge(unread=True)
                await body.fill(receive, fingerprint.update, limit)
            except ClientGone:
                return
            except BodyTooLarge as error:
                answer = Refusal if error.unread else Reply
                await answer(problems.body_too_large(limit).messages())(scope, receive, send)
                return
            if fingerprint.is_costly:
                fingerprinted = await in_thread(fingerprint.finish)
            else:
                fingerprinted = fingerprint.finish()
            request = KeyedRequest(
                record_key=name,
                tenant_id=identity.tenant_id or "",
                user_id=identity.user_id,
                operation_type=f"{method} {endpoint.template}" if endpoint.template else method,
                fingerprint=with_cookies(fingerprinted, asked.sender.cookies or ()),
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


class _Asked(NamedTuple):
    """What a request under a key asks for, and who asks."""

    target: Target
    sender: Sender


class _Refused(Exception):
    """The request cannot be dealt with as it is."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.slug)
        self.problem = problem


def _fingerprint(scope: Scope, asked: _Asked, options: IdempotencyOptions) -> Fingerprint:
    content_type = b",".join(header_values(scope, b"content-type"))
    encoding = b",".join(header_values(scope, b"content-encoding"))
    compared = frozenset(options.fingerprint_headers)
    if not options.per_origin:
        compared -= FORWARDED_HOSTS
    fields = tuple((name, value) for name, value in scope["headers"] if name.decode("latin-1") in compared)
    query = scope.get("query_string", b"")
    head = RequestHead(asked.target.method, asked.target.path, query, content_type, encoding, fields)
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
