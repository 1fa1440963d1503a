"""Endpoints that need a key, behind layers through which the middleware cannot look ahead to them."""

from __future__ import annotations

import functools
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dotmac.tasks import (
    BackgroundOperationsManager,
    BackgroundOperationsMiddleware,
    MemoryStorage,
    MiddlewareNotInstalled,
    idempotent_route,
)

KEY = {"Idempotency-Key": "order-1"}
runs: list[str] = []


class Order(BaseModel):
    item: str


@idempotent_route(required=True)
async def starlette_async(request: Request) -> JSONResponse:
    runs.append("async")
    return JSONResponse({})


@idempotent_route(required=True)
def starlette_plain(request: Request) -> JSONResponse:
    runs.append("plain")
    return JSONResponse({})


@idempotent_route(ttl=60)
@idempotent_route(required=True)
async def twice(request: Request) -> JSONResponse:
    runs.append("twice")
    return JSONResponse({})


@idempotent_route(required=True)
class Whole(HTTPEndpoint):
    async def get(self, request: Request) -> JSONResponse:
        return JSONResponse({})

    async def post(self, request: Request) -> JSONResponse:
        runs.append("class")
        return JSONResponse({})

    @idempotent_route(required=False)
    async def patch(self, request: Request) -> JSONResponse:
        return JSONResponse({})


class Single(HTTPEndpoint):
    @idempotent_route(required=True)
    async def post(self, request: Request) -> JSONResponse:
        runs.append("method")
        return JSONResponse({})


class Raw:
    @idempotent_route(required=True)
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        runs.append("raw")
        await JSONResponse({})(scope, receive, send)


@idempotent_route(required=False)
@idempotent_route(required=True)
async def optional(request: Request) -> JSONResponse:
    return JSONResponse({})


starlette_app = Starlette(
    routes=[
        Route("/async", starlette_async, methods=["POST", "PUT"]),
        Route("/plain", starlette_plain, methods=["POST"]),
        Route("/twice", twice, methods=["POST"]),
        Route("/class", Whole),
        Route("/method", Single),
        Route("/raw", Raw(), methods=["POST"]),
        Route("/optional", optional, methods=["POST"]),
    ]
)
fastapi_app = FastAPI()


@fastapi_app.post("/async")
@idempotent_route(required=True)
async def fastapi_async(order: Order) -> dict[str, str]:
    runs.append("async")
    return {"item": order.item}


@fastapi_app.post("/plain")
@idempotent_route(required=True)
def fastapi_plain(order: Order) -> dict[str, str]:
    runs.append("plain")
    return {"item": order.item}


@pytest.fixture(autouse=True)
def _no_runs() -> None:
    runs.clear()


def hidden(app: ASGIApp) -> ASGIApp:
    """Behind a closure, which has no attribute for its inner app."""

    async def layer(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return layer


def mounted(app: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount("/", app=hidden(app))])


def in_another_task(app: ASGIApp) -> ASGIApp:
    async def dispatch(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    return hidden(BaseHTTPMiddleware(app, dispatch))


async def send(app: ASGIApp, path: str, method: str = "POST", headers: dict[str, str] | None = None) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, json={"item": "tea"}, headers=headers or {})


@pytest.mark.parametrize("layer", [hidden, mounted, in_another_task])
@pytest.mark.parametrize(
    ("app", "path"),
    [(starlette_app, path) for path in ("/async", "/plain", "/twice", "/class", "/method", "/raw")]
    + [(fastapi_app, path) for path in ("/async", "/plain")],
)
async def test_an_endpoint_that_is_hidden_refuses_a_request_without_a_key(app: ASGIApp, path: str, layer: Any) -> None:
    async with BackgroundOperationsManager(MemoryStorage()) as manager:
        whole = BackgroundOperationsMiddleware(layer(app), manager)
        refused = await send(whole, path)
        assert refused.status_code == 400, refused.text
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["type"].endswith(":key-missing")
        assert not runs
        first, again = [await send(whole, path, headers=KEY) for _ in range(2)]
        assert (first.status_code, again.status_code) == (200, 200), first.text
        assert first.content == again.content
        assert again.headers["idempotency-replayed"] == "true"
        assert len(runs) == 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/class"), ("PATCH", "/class"), ("POST", "/optional")])
@pytest.mark.parametrize("layer", [hidden, lambda app: app])
async def test_a_request_that_needs_no_key_passes(method: str, path: str, layer: Any) -> None:
    async with BackgroundOperationsManager(MemoryStorage()) as manager:
        whole = BackgroundOperationsMiddleware(layer(starlette_app), manager)
        assert (await send(whole, path, method)).status_code == 200


async def test_a_key_that_the_middleware_has_not_looked_at_ends_in_an_error() -> None:
    async with BackgroundOperationsManager(MemoryStorage()) as manager:
        whole = BackgroundOperationsMiddleware(hidden(starlette_app), manager)
        assert (await send(whole, "/async", "PUT", KEY)).status_code == 500
        with pytest.raises(MiddlewareNotInstalled, match=r'RouteRule\("PUT <path>", required=True\)'):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(whole), base_url="http://test") as client:
                await client.put("/async", headers=KEY)
        assert not runs


@pytest.mark.parametrize(
    ("app", "path"), [(starlette_app, "/async"), (starlette_app, "/class"), (fastapi_app, "/plain")]
)
async def test_without_the_middleware_a_needed_key_is_an_error(app: ASGIApp, path: str) -> None:
    assert (await send(app, path, headers=KEY)).status_code == 500
    with pytest.raises(MiddlewareNotInstalled, match="add_background_operations_middleware"):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            await client.post(path, json={"item": "tea"}, headers=KEY)
    assert not runs


def test_the_decorator_keeps_the_signature_for_fastapi() -> None:
    operation = fastapi_app.openapi()["paths"]["/async"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Order")
    assert operation["operationId"].startswith("fastapi_async")


async def test_what_wraps_a_decorated_endpoint_may_be_decorated_too() -> None:
    @functools.wraps(starlette_async)
    async def logged(request: Request) -> Any:
        return await starlette_async(request)

    app = Starlette(routes=[Route("/", idempotent_route(in_flight="wait")(logged), methods=["POST"])])
    async with BackgroundOperationsManager(MemoryStorage()) as manager:
        for layer in (hidden, lambda app: app):
            whole = BackgroundOperationsMiddleware(layer(app), manager)
            assert (await send(whole, "/")).status_code == 400
            assert (await send(whole, "/", headers=KEY)).status_code == 200
    assert runs == ["async"]
