"""Signing in from a browser: a token is exchanged for a session cookie, so that no page ever holds a token."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ..errors import InvalidInput
from .access import Access
from .attempts import Attempts
from .guard import root_of
from .reading import read_form

LoginPage = Callable[[Request, str, str | None], Response]
"""Shows the form: called with the request, the path to go to afterwards, and what was wrong, if something was.

The form is sent by POST to ``login``, with the fields ``token`` and ``next``.
"""

_log = logging.getLogger("dotmac.tasks.audit")


def login_routes(access: Access, page: LoginPage) -> list[BaseRoute]:
    """The routes ``/login`` and ``/logout``."""
    attempts = Attempts()

    async def login(request: Request) -> Response:
        if request.method != "POST":
            return page(request, _inside(request.query_params.get("next", "/")), None)
        fields = await _sent(request)
        wanted = _inside(fields.get("next", "/"))
        address = "" if request.client is None else request.client.host
        seconds = attempts.wait(address)
        if seconds:
            waiting = page(request, wanted, "Too many sign-ins failed. Try again later.")
            waiting.status_code = HTTPStatus.TOO_MANY_REQUESTS
            waiting.headers["Retry-After"] = str(math.ceil(seconds))
            return waiting
        token = access.tokens.find(fields.get("token", "").strip())
        if token is None:
            attempts.failed(address)
            _log.warning("a sign-in with an unknown token was refused")
            refused = page(request, wanted, "This token is not known.")
            refused.status_code = HTTPStatus.FORBIDDEN
            return refused
        _log.info("%s signed in", token.caller.name, extra={"who": token.caller.name})
        response = RedirectResponse(root_of(request) + wanted, HTTPStatus.SEE_OTHER)
        access.sessions.begin(request, response, token)
        return response

    async def logout(request: Request) -> Response:
        response = RedirectResponse(f"{root_of(request)}/login", HTTPStatus.SEE_OTHER)
        access.sessions.end(request, response)
        return response

    return [
        Route("/login", login, methods=["GET", "POST"], name="login"),
        Route("/logout", logout, methods=["POST"], name="logout"),
    ]


def plain_login_page(request: Request, wanted: str, problem: str | None) -> Response:
    """The form without any decoration."""
    complaint = "" if problem is None else f'<p role="alert">{escape(problem)}</p>'
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Sign in</title>"
        "<main><h1>Sign in</h1>"
        f'{complaint}<form method="post" action="{escape(root_of(request))}/login">'
        f'<input type="hidden" name="next" value="{escape(wanted)}">'
        '<p><label>Token <input type="password" name="token" required autocomplete="current-password"></label></p>'
        "<p><button>Sign in</button></p></form></main></html>"
    )


def _inside(path: str) -> str:
    """The path if it stays on this service, else the first page: a link must not lead elsewhere after signing in."""
    try:
        parts = urlsplit(path)
    except ValueError:  # such as an address in brackets that is none
        return "/"
    stays = path.startswith("/") and not path.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return path if stays and path.isprintable() else "/"


async def _sent(request: Request) -> dict[str, str]:
    try:
        return await read_form(request)
    except InvalidInput:  # too large for a token, so there is none in it
        return {}
