"""JSON responses, and the guard that turns this package's errors into problem documents."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ...errors import DotmacTasksError
from ..callers import caller_of
from ..problems import Problem, problem_of
from ..redaction import Redaction

Handler = Callable[[Request], Awaitable[Response]]
encode_model = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


def json_reply(value: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    """A response with this value as JSON."""
    return Response(encode_model(value), status, headers, "application/json")


def as_seen_by(request: Request, model: Any, redaction: Redaction) -> Any:
    """A model with parameters, results or details in it, redacted for a caller who may only view."""
    caller = caller_of(request)
    return model if caller is not None and caller.may_operate else redaction.of_model(model)


def guarded(handler: Handler) -> Handler:
    """The handler, with a problem document for each error; what is our own fault is logged with its traceback."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except DotmacTasksError as error:
            problem = problem_of(error)
            if problem is None:
                _log.exception("%s %s failed", request.method, request.scope["path"])
                problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", "the log of the service has more")
            return problem.response()

    return answer
