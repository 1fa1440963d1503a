"""Middleware of others around this one: the order in which it keeps its promises, as the guide says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, add_background_operations_middleware


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.mark.parametrize("around", [False, True])
async def test_an_answer_that_breaks_off_is_not_stored_as_a_whole_one(around: bool) -> None:
    async with BackgroundOperationsManager(MemoryStorage()) as manager:
        app = FastAPI()
        add_background_operations_middleware(app, manager)
        if around:
            app.add_middleware(Passing)

        @app.post("/report")
        async def report() -> StreamingResponse:
            async def lines() -> AsyncIterator[str]:
                yield "the first line\n"
                raise RuntimeError("the printer is gone")

            return StreamingResponse(lines())

        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            first, again = [await client.post("/report", headers={"Idempotency-Key": '"r"'}) for _ in range(2)]
        assert first.status_code == 200
        assert again.status_code == 409
        assert again.json()["type"].endswith(":outcome-unknown")
