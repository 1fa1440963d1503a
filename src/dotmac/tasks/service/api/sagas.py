"""Sagas over HTTP: start, list, look at, cancel, retry."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ...errors import InvalidInput
from ...http.keys import HEADER, parse_idempotency_key
from ...manager import BackgroundOperationsManager
from ...models import OperationStatus
from .. import audit
from ..callers import caller_of
from ..guard import root_of
from ..redaction import Redaction
from .bodies import saga_fields
from .documents import History, Retrying, SagaInput, StartedSaga, SteeredSaga, Steering
from .query import Query, read_json
from .replies import as_seen_by, json_reply

AnySteering = TypeVar("AnySteering", bound=Steering)
FILTERS = ("tenant_id", "status", "workflow_type", "parked", "created_after", "created_before", "limit", "cursor")
DEFAULT_PAGE, LARGEST_PAGE = 100, 1000
_LONGEST_REASON = 500
_LONGEST_TRACESTATE = 512
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SPARE = 65_536  # bytes of a body beyond what a saga's definition may have: blanks, and the names of defaults


class Sagas:
    """Handlers of ``/v1/sagas``.

    Args:
        manager: Whose sagas.
        redaction: Hides values from callers who may only view.
    """

    def __init__(self, manager: BackgroundOperationsManager, redaction: Redaction) -> None:
        self._manager = manager
        self._redaction = redaction

    async def start(self, request: Request) -> Response:
        """Start a saga; under a key that is known, give the one that was started."""
        Query(request, ())
        lines = [value for name, value in request.headers.raw if name == HEADER.lower().encode()]
        key = parse_idempotency_key(lines) if lines else None
        wanted = await read_json(request, SagaInput, self._manager.settings.max_payload + _SPARE)
        fields = saga_fields(wanted)
        fields["metadata"] = {**_trace_context(request), **(fields["metadata"] or {})}
        handle = await self._manager.start_saga(**fields, idempotency_key=key)
        url = _url(request, handle.saga_id)
        return json_reply(StartedSaga(handle.saga_id, url), HTTPStatus.CREATED, {"Location": url})

    async def list(self, request: Request) -> Response:
        """A page of sagas, newest first."""
        query = Query(request, FILTERS)
        status = query.text("status")
        if query.flag("parked"):
            if status not in (None, OperationStatus.FAILED, "parked"):
                raise InvalidInput("parked", f"failed sagas are parked; the status is {status!r:.80}")
            status = OperationStatus.FAILED
        page = await self._manager.list_sagas(
            query.text("tenant_id"),
            status,
            query.text("workflow_type"),
            query.number("limit", DEFAULT_PAGE, LARGEST_PAGE),
            query.text("cursor"),
            created_after=query.time("created_after"),
            created_before=query.time("created_before"),
        )
        return json_reply(page)

    async def show(self, request: Request) -> Response:
        """One saga."""
        Query(request, ())
        saga = await self._manager.get_saga(_saga_id(request))
        return json_reply(as_seen_by(request, saga, self._redaction))

    async def history(self, request: Request) -> Response:
        """What happened to it."""
        Query(request, ())
        history = History(await self._manager.get_saga_history(_saga_id(request)))
        return json_reply(as_seen_by(request, history, self._redaction))

    async def cancel(self, request: Request) -> Response:
        """Let it turn back."""
        given = await _steering(request, Steering)
        await audit.cancel(self._manager, _saga_id(request), _who(request), given.reason)
        return self._steered(request)

    async def retry(self, request: Request) -> Response:
        """Let it go on from where it failed, or forward again from a step."""
        given = await _steering(request, Retrying)
        await audit.retry(self._manager, _saga_id(request), _who(request), given.reason, given.from_step)
        return self._steered(request)

    @staticmethod
    def _steered(request: Request) -> Response:
        saga_id = _saga_id(request)
        return json_reply(SteeredSaga(saga_id, _url(request, saga_id)), HTTPStatus.ACCEPTED)


def _trace_context(request: Request) -> dict[str, str]:
    """The caller's trace, for the saga to take along: what the W3C's headers say, if they say it well."""
    parent, state = (request.headers.get(name, "") for name in ("traceparent", "tracestate"))
    if _TRACEPARENT.fullmatch(parent) is None:
        return {}
    return {"traceparent": parent, **({"tracestate": state} if 0 < len(state) <= _LONGEST_TRACESTATE else {})}


def _saga_id(request: Request) -> str:
    saga_id: str = request.path_params["saga_id"]
    return saga_id


def _url(request: Request, saga_id: str) -> str:
    return f"{root_of(request)}/v1/sagas/{saga_id}"


def _who(request: Request) -> str:
    caller = caller_of(request)
    return "unknown" if caller is None else caller.name


async def _steering(request: Request, kind: type[AnySteering]) -> AnySteering:
    Query(request, ())
    given = await read_json(request, kind, _SPARE, optional=True)
    if len(given.reason) > _LONGEST_REASON or not (given.reason.isprintable() or not given.reason):
        raise InvalidInput("reason", f"must be up to {_LONGEST_REASON} printable characters")
    return given
