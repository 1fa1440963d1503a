"""Requests whose work is a saga: who starts it, who repeats the request, and all of them get the saga's one answer."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any, cast

import anyio

from ..jsonvalue import encode
from ..models import OperationStatus
from .asgi import Reply
from .problems import accepted_messages, response_messages, saga_compensated, saga_failed

if TYPE_CHECKING:
    from ..handle import SagaHandle
    from ..models import SagaOutcome
    from .asgi import ASGIApp
    from .options import IdempotencyOptions

_COME_BACK = 2  # seconds that a client is asked to wait for a saga that is not at its end


def render_outcome(outcome: SagaOutcome) -> Reply:
    """The answer to a request whose saga has ended, unless the route has one of its own (``saga_response``).

    Completed: 200 with ``saga_id``, ``status`` and ``results``, as JSON. Compensated: a 409 problem, everything was
    undone. Parked: a 500 problem, an operator has to see to it.
    """
    if outcome.status is OperationStatus.COMPLETED:
        document = {"saga_id": outcome.saga_id, "status": str(outcome.status), "results": outcome.results}
        return Reply(response_messages(200, b"application/json", encode(document)))
    if outcome.status is OperationStatus.COMPENSATED:
        return Reply(saga_compensated(outcome.saga_id, outcome.error).messages())
    return Reply(saga_failed(outcome.saga_id, outcome.error, outcome.open_items).messages())


async def answer_of(handle: SagaHandle, options: IdempotencyOptions) -> ASGIApp:
    """Wait for the saga as long as the route allows, and render its outcome, or say where to look for it.

    Raises:
        SagaNotFound: It ended so long ago that it is no longer kept.
    """
    outcome: SagaOutcome | None = None
    with anyio.move_on_after(options.saga_wait):
        outcome = await handle.result()
    if outcome is None:
        location = options.saga_location and options.saga_location.format(saga_id=handle.saga_id)
        return Reply(accepted_messages(handle.saga_id, _COME_BACK, location=location))
    if options.saga_response is None:
        return render_outcome(outcome)
    answer = options.saga_response(outcome)
    return cast("ASGIApp", await answer if inspect.isawaitable(answer) else answer)


def as_starlette(answer: ASGIApp) -> Any:
    """The answer as a Starlette response where Starlette is in use: its routers, and FastAPI's, go by its type."""
    if not isinstance(answer, Reply) or "starlette" not in sys.modules:
        return answer
    start, content = answer.messages
    response = importlib.import_module("starlette.responses").Response(content["body"], start["status"])
    response.raw_headers = list(start["headers"])
    return response
