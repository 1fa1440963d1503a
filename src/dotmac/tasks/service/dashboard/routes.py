"""The dashboard's addresses."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from .actions import BY_NAME, Operations
from .pages import Pages
from .rendering import FOLDER
from .site import Site


def login_page(site: Site) -> Callable[[Request, str, str | None], Response]:
    """Shows the form for signing in: called with the request, where to go afterwards, and what was wrong, if it was."""

    def page(request: Request, wanted: str, problem: str | None) -> Response:
        return site.page(request, "login.html", wanted=wanted, problem=problem)

    return page


def dashboard_routes(site: Site) -> list[BaseRoute]:
    """Routes for all pages and what they are drawn with, below ``/``; mount them last, for they answer everything."""
    pages, operations, guarded = Pages(site), Operations(site), site.guarded

    async def nothing(request: Request) -> Response:
        return site.error(request, HTTPStatus.NOT_FOUND, f"There is no page {request.scope['path']}.")

    async def action(request: Request) -> Response:
        if request.path_params["action"] not in BY_NAME:
            return await nothing(request)
        return await (operations.act(request) if request.method == "POST" else operations.confirm(request))

    return [
        Route("/", guarded(pages.overview), name="overview"),
        Route("/sagas", guarded(pages.sagas), name="sagas"),
        Route("/sagas/{saga_id}", guarded(pages.saga), name="saga"),
        Route("/sagas/{saga_id}/{action}", guarded(action), methods=["GET", "POST"], name="action"),
        Route("/keys", guarded(pages.keys), name="keys"),
        Route("/locks", guarded(pages.locks), name="locks"),
        Route("/locks/{name:path}", guarded(pages.lock), name="lock"),
        Route("/workers", guarded(pages.workers), name="workers"),
        Route("/settings", guarded(pages.settings), name="settings"),
        Mount("/static", StaticFiles(directory=FOLDER / "static"), name="static"),
        Route("/{rest:path}", nothing, methods=["GET", "POST"], name="nothing"),
    ]
