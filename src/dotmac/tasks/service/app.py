"""The ASGI application of the service: API, health, metrics, sign-in, and the pages that are mounted at ``/``."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from ..manager import BackgroundOperationsManager
from ..observability.prometheus import PrometheusMetrics
from .access import Access
from .api.routes import api_routes
from .feed import Feed
from .guard import Guard
from .login import LoginPage, login_routes, plain_login_page
from .problems import Problem, not_found
from .redaction import Redaction
from .unread import ReadFirst

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Listens to the metrics hooks."""

    def install(self) -> Callable[[], None]:
        """Listen from now on; gives a function that ends it."""


@dataclass(frozen=True, slots=True)
class Extension:
    """What is added to the API.

    Attributes:
        routes: Answer what the API does not.
        login_page: Shows the form for signing in.
        listeners: Listen to the metrics hooks while the application's lifespan lasts.
        background: Tasks that run while the lifespan lasts, and are cancelled at its end.
    """

    routes: Sequence[BaseRoute] = ()
    login_page: LoginPage = plain_login_page
    listeners: Sequence[Listener] = ()
    background: Sequence[Callable[[], Awaitable[None]]] = ()


def create_app(
    manager: BackgroundOperationsManager,
    *,
    access: Access | None = None,
    redaction: Redaction | None = None,
    extension: Extension = Extension(),
) -> Starlette:
    """The application, for a server that runs under trio in the manager's own trio run.

    A manager that runs is left alone. One that does not is started and stopped with the application's lifespan.

    Args:
        manager: What is looked at and operated.
        access: Who may do what; None: everybody on this machine, nobody else.
        redaction: Hides values from callers who may only view; None: those of `DEFAULT_FIELDS`.
        extension: What is added to the API, such as a dashboard.

    Returns:
        The application. Setting the event ``app.state.closing`` ends all event streams and makes
        ``/health/ready`` say that it is stopping.
    """
    access, feed, metrics = access or Access(), Feed(), PrometheusMetrics()
    everybody: list[Listener] = [feed, metrics, *extension.listeners]
    closing = trio.Event()
    routes: list[BaseRoute] = [
        *api_routes(manager, feed, closing, metrics, redaction or Redaction()),
        *login_routes(access, extension.login_page),
        *extension.routes,
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for listener in everybody:
                stack.callback(listener.install())
            if not manager.is_running:
                await stack.enter_async_context(manager)
            nursery = await stack.enter_async_context(trio.open_nursery())
            for task in extension.background:
                nursery.start_soon(task)
            yield
            closing.set()
            nursery.cancel_scope.cancel()

    app = _Service(
        routes=routes,
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={HTTPException: _http_problem, ClientDisconnect: _hung_up, Exception: _crashed},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.closing = closing
    return app


class _Service(Starlette):
    def build_middleware_stack(self) -> ASGIApp:
        """The stack, with what has to be around the answer to a crash too."""
        return ReadFirst(super().build_middleware_stack())


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - narrows the type; it is registered for nothing else
    if error.status_code == HTTPStatus.NOT_FOUND:
        return not_found(request.scope["path"]).response()
    status = HTTPStatus(error.status_code)
    detail = f"{request.method} is not possible here" if status is HTTPStatus.METHOD_NOT_ALLOWED else error.detail
    return Problem(
        status, status.phrase.lower().replace(" ", "-"), detail, headers=dict(error.headers or {})
    ).response()


async def _hung_up(request: Request, _error: Exception) -> Response:
    _log.debug("%s %s: the client hung up before its request was complete", request.method, request.scope["path"])
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # which nobody hears


async def _crashed(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
    detail = "the log of the service has more"
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", detail).response()
