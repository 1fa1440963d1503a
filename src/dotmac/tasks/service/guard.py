"""Stands before everything the service answers: checks the host, the caller and where a change comes from.

What it refuses never reaches a handler. What it lets through knows its caller (`callers.caller_of`), and every answer
leaves with the headers that keep a browser from doing with it what it must not.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InvalidInput
from ..http.asgi import route_path
from ..http.authority import origin_of
from .access import Access
from .callers import caller_of, set_caller
from .connections import admitted
from .problems import Problem

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/login"})
"""Answered without a caller: probes know no token, and whoever signs in has no session yet."""

OPEN_FOLDER = "/static/"
_FOR_PROGRAMS = ("/v1/", "/metrics", "/openapi.json", "/health/")
_ROOT = "dotmac.tasks.service.root"
_DEFAULT_PORTS = {"http": "80", "https": "443"}

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every response."""


class Guard:
    """ASGI middleware.

    Args:
        app: What it guards.
        access: The rules.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks WebSocket; refused before anybody is asked who they are
            await send({"type": "websocket.close", "code": 1008})
            return
        scope[_ROOT] = scope.get("root_path", "").rstrip("/")
        request = Request(scope, receive)
        refusal = await self._refusal(request)
        answer = self._app if refusal is None else refusal
        if caller_of(request) is None:
            await answer(scope, receive, _hardened(send))
            return
        with admitted(scope):
            await answer(scope, receive, _hardened(send))

    async def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not self._access.serves_host(host):
            return _refused(
                request, HTTPStatus.MISDIRECTED_REQUEST, "host-not-served",
                "requests must name localhost or 127.0.0.1 as their host, or a name that was given as --host",
            )  # fmt: skip
        if not _is_text(request.scope):
            return _refused(
                request, HTTPStatus.BAD_REQUEST, "request-malformed", "path and query must be UTF-8 or percent-encoded"
            )
        changes = request.method not in SAFE_METHODS
        if changes and not same_origin(request):
            return _refused(
                request, HTTPStatus.FORBIDDEN, "cross-origin",
                "a page of another origin sent this request; changes are taken from this origin only",
            )  # fmt: skip
        path = _path(request)
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return _malformed_host(request)
        caller = await self._access.caller(request)
        if caller is None:
            return self._unknown(request, path)
        if changes and not caller.may_operate and path != "/logout":
            return _refused(
                request, HTTPStatus.FORBIDDEN, "role-view",
                f"the role of {caller.name} is view; this takes a token whose role is operate",
            )  # fmt: skip
        set_caller(request, caller)
        return _malformed_host(request)

    def _unknown(self, request: Request, path: str) -> Response:
        wants_page = request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")
        if wants_page and self._access.tokens and not path.startswith(_FOR_PROGRAMS):
            query = request.scope["query_string"].decode("utf-8")
            wanted = f"{path}?{query}" if query else path
            return RedirectResponse(f"{root_of(request)}/login?next={quote(wanted, safe='')}", HTTPStatus.SEE_OTHER)
        refusal = _refused(
            request, HTTPStatus.UNAUTHORIZED, "unauthorized", "send a token: Authorization: Bearer TOKEN"
        )
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal


def same_origin(request: HTTPConnection) -> bool:
    """Whether the request was not sent by a page of another origin.

    Browsers say where a request comes from (`Sec-Fetch-Site`, `Origin`); a request with neither is a program's.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    if origin is None:
        return True
    scheme, _, place = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme, "")
    # The scheme is not compared: a proxy that ends TLS passes plain HTTP on.
    return bool(place) and place.removesuffix(f":{port}") == request.headers.get("host", "").removesuffix(f":{port}")


def root_of(request: HTTPConnection) -> str:
    """The path under which the service is mounted; empty at the root."""
    # As the guard found it: inside of the service, the root path has the mounts of its own in it.
    root: str = request.scope[_ROOT]
    return root


def _is_text(scope: Scope) -> bool:
    try:
        scope["path"].encode("utf-8")
        scope["query_string"].decode("utf-8")
    except UnicodeError:
        return False
    return True


def _malformed_host(request: Request) -> Response | None:
    # Asked last: a caller who may not come in learns no more than that.
    try:
        origin_of(request.scope)
    except InvalidInput as error:
        return _refused(request, HTTPStatus.BAD_REQUEST, "request-malformed", str(error))
    return None


def _path(request: Request) -> str:
    # As the routes see it. A URL is put together from the Host header too, which is the caller's to choose.
    return route_path(request.scope) or "/"


def _refused(request: Request, status: HTTPStatus, slug: str, detail: str) -> Response:
    if "text/html" in request.headers.get("accept", "") and not _path(request).startswith(_FOR_PROGRAMS):
        return PlainTextResponse(f"{status.phrase}: {detail}\n", status)
    return Problem(status, slug, detail).response()


def _hardened(send: Send) -> Send:
    async def harden(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return harden
