"""Which word decides for a request: no default beats a rule or a decorator."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from trio.testing import MockClock

from dotmac.tasks import MemoryStorage, RouteRule, add_background_operations_middleware, idempotent_route
from middleware.asgi_client import Client
from middleware.test_middleware import Shop
from runtime.nodes import Node


@pytest.mark.parametrize(
    ("path", "how", "arguments"),
    [
        ("/ready/now", {}, {"routes": [RouteRule("/ready/**", required=True)]}),
        ("/app/ready", {"root_path": "/app"}, {"routes": [RouteRule("/app/ready", required=True)]}),
        ("/hooks/a", {}, {"exempt_paths": {"/hooks"}, "routes": [RouteRule("/hooks/a", required=True)]}),
        ("/files/a", {"method": "PUT"}, {"routes": [RouteRule("PUT /files/*", required=True)]}),
    ],
)
async def test_no_default_beats_a_rule(
    autojump_clock: MockClock, shared: MemoryStorage, path: str, how: Any, arguments: Any
) -> None:
    async with Shop(shared, **arguments) as shop:
        assert (await shop.client.post(path, key=None, **how)).problem == "key-missing"
        await shop.client.post(path, **how)
        assert (await shop.client.post(path, **how)).replayed


@pytest.mark.parametrize(("path", "method"), [("/docs", "POST"), ("/metrics/push", "POST"), ("/orders", "DELETE")])
async def test_no_default_beats_a_decorator(
    autojump_clock: MockClock, shared: MemoryStorage, path: str, method: str
) -> None:
    runs: list[str] = []

    @idempotent_route(required=True)
    async def endpoint(request: Request) -> JSONResponse:
        runs.append(request.url.path)
        return JSONResponse({})

    async with Node(shared, lambda _: None) as node:
        app = Starlette(routes=[Route(path, endpoint, methods=[method])])
        add_background_operations_middleware(app, node.manager)
        client = Client(app)
        assert (await client.post(path, key=None, method=method)).problem == "key-missing"
        await client.post(path, method=method)
        assert (await client.post(path, method=method)).replayed
    assert runs == [path]
