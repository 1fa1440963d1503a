"""What all pages share: who looks, the manager, the templates, and how an error becomes a page."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import trio
from jinja2 import Environment
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ...errors import DotmacTasksError, EnvironmentFault, InvalidInput, NotStarted, SagaNotFound, SagaStateError
from ...http.asgi import route_path
from ...manager import BackgroundOperationsManager
from ..redaction import Redaction
from .activity import SAMPLE_EVERY, Activity, StoredCounts, WorkersSeen
from .rendering import make_environment

_log = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page.

    Attributes:
        name: As it stands in the audit entries.
        may_operate: Whether this visitor may cancel and retry sagas.
        can_leave: Whether there is a session that can be ended.
    """

    name: str
    may_operate: bool
    can_leave: bool = False


@dataclass(slots=True)
class Site:
    """The dashboard of one manager.

    Attributes:
        manager: Whose sagas are shown.
        visitor_of: Says who sent a request; None: nobody yet, who is about to sign in.
        redaction: Hides values on all pages.
        streams: Whether the API's event streams are beside the pages, so that they can be live by them.
    """

    manager: BackgroundOperationsManager
    visitor_of: Callable[[Request], Visitor | None]
    redaction: Redaction = field(default_factory=Redaction)
    streams: bool = False
    activity: Activity = field(default_factory=Activity)
    counts: StoredCounts = field(default_factory=StoredCounts)
    workers: WorkersSeen = field(default_factory=WorkersSeen)
    templates: Environment = field(default_factory=make_environment)

    async def look_regularly(self) -> None:
        """Count sagas and list workers at intervals, for rates and for workers that go; runs until it is cancelled."""
        while True:
            try:
                self.counts.note(await self.manager.count_sagas())
                self.workers.gone(await self.manager.list_workers())
            except (EnvironmentFault, NotStarted) as error:
                _log.debug("sagas and workers could not be looked at: %s", error)
            await trio.sleep(SAMPLE_EVERY)

    def page(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page from its template."""
        root = request.scope.get("root_path", "").rstrip("/")
        text = self.templates.get_template(template).render(
            base=root,
            path=route_path(request.scope),
            visitor=self.visitor_of(request),
            streams=self.streams,
            **values,
        )
        return HTMLResponse(text, status, headers={"Cache-Control": "no-store"})

    def guarded(self, handler: Handler) -> Handler:
        """The handler, with a page for each error that is somebody's fault but ours."""

        async def guarded(request: Request) -> Response:
            try:
                return await handler(request)
            except DotmacTasksError as error:
                status = status_of(error)
                if status is None:
                    raise
                return self.error(request, status, str(error))

        return guarded

    def error(self, request: Request, status: HTTPStatus, message: str) -> Response:
        """A page that says what went wrong, and what can be done about it."""
        return self.page(
            request, "error.html", status=status, title=_TITLES.get(status, status.phrase), message=message,
            waits=status is HTTPStatus.SERVICE_UNAVAILABLE,
        )  # fmt: skip


_TITLES = {
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.BAD_REQUEST: "That cannot be asked for",
    HTTPStatus.CONFLICT: "That cannot be done",
    HTTPStatus.FORBIDDEN: "Not allowed",
    HTTPStatus.SERVICE_UNAVAILABLE: "The storage does not answer",
}


def status_of(error: DotmacTasksError) -> HTTPStatus | None:
    """The HTTP status that an error means; None for one of ours."""
    if isinstance(error, SagaNotFound):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, SagaStateError):
        return HTTPStatus.CONFLICT
    if isinstance(error, InvalidInput):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, EnvironmentFault | NotStarted) else None
