"""Answers that a middleware inside gives while the endpoint has not completed its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import trio
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsMiddleware, IdempotencyOptions, MemoryStorage, declare_no_effect
from middleware.asgi_client import Client
from runtime.nodes import Node


class TimeOut:
    """Answers with 504 once the app inside took a second."""

    status = 504

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with anyio.move_on_after(1) as limit:
            await self.app(scope, receive, send)
        if limit.cancelled_caught:
            await PlainTextResponse("too slow", self.status)(scope, receive, send)


class RequestTimeOut(TimeOut):
    status = 408


class Fallback(TimeOut):
    status = 202


class Raising(TimeOut):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with anyio.fail_after(1):
            await self.app(scope, receive, send)


class LeavingAlone(BaseHTTPMiddleware):
    """Answers with 504 after a second, while the endpoint goes on."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        with anyio.move_on_after(1):
            return await call_next(request)
        return PlainTextResponse("too slow", 504)


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


class ErrorPage(BaseHTTPMiddleware):
    """Replaces errors by a page of its own, and does not read theirs."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        answer = await call_next(request)
        return PlainTextResponse("sorry", 503) if answer.status_code >= 500 else answer


class Retrying:
    """Calls the app inside again when it took too long."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with anyio.move_on_after(1) as limit:
            await self.app(dict(scope), receive, send)
        if limit.cancelled_caught:
            await self.app(dict(scope), receive, send)


class Shop:
    """Its endpoint takes ten seconds the first time."""

    def __init__(self) -> None:
        self.runs = 0
        self.ended = 0

    async def order(self, request: Request) -> Response:
        self.runs += 1
        if "no-effect" in request.query_params:
            declare_no_effect(request)
        if self.runs == 1:
            await trio.sleep(10)
        self.ended += 1
        return JSONResponse({"run": self.runs})

    async def fails(self, _request: Request) -> Response:
        self.runs += 1
        return PlainTextResponse("broken", 500)

    async def report(self, request: Request) -> Response:
        self.runs += 1

        async def lines() -> AsyncIterator[bytes]:
            yield b"the first line"
            if "slow" in request.query_params:
                await trio.sleep(10)
            raise RuntimeError("the printer is gone")

        length = {"content-length": "1000"} if "length" in request.query_params else {}
        return StreamingResponse(lines(), headers=length)

    def routes(self) -> list[Any]:
        methods = ["POST"]
        return [
            Route("/order", self.order, methods=methods),
            Route("/fails", self.fails, methods=methods),
            Route("/report", self.report, methods=methods),
        ]


def app_of(shop: Shop, layer: Any, place: str) -> Any:
    """The shop with a layer around its router, in a mount, or around a route."""
    if place == "app":
        return Starlette(routes=shop.routes(), middleware=[Middleware(layer)])
    if place == "mount":
        return Starlette(routes=[Mount("/", routes=shop.routes(), middleware=[Middleware(layer)])])
    if place == "fastapi":
        app = FastAPI(routes=shop.routes())
        app.add_middleware(layer)
        return app
    return Starlette(
        routes=[
            Route(route.path, route.endpoint, methods=["POST"], middleware=[Middleware(layer)])
            for route in shop.routes()
        ]
    )


PLACES = pytest.mark.parametrize("place", ["app", "mount", "route", "fastapi"])


@PLACES
@pytest.mark.parametrize("layer", [TimeOut, RequestTimeOut])
@pytest.mark.parametrize("policy", ["unknown", "rerun"])
async def test_a_time_out_inside_counts_as_the_route_says_of_a_crash(
    autojump_clock: MockClock, shared: MemoryStorage, policy: Any, layer: Any, place: str
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop, options = Shop(), IdempotencyOptions(on_crash=policy)
        client = Client(BackgroundOperationsMiddleware(app_of(shop, layer, place), node.manager, options=options))
        assert (await client.post("/order")).status == layer.status
        again = await client.post("/order")
        if policy == "unknown":
            assert (again.problem, shop.runs) == ("outcome-unknown", 1)
        else:
            assert (again.json, again.replayed) == ({"run": 2}, False)
            assert (await client.post("/order")).replayed


@pytest.mark.parametrize("policy", ["record", "release"])
async def test_a_time_out_that_a_middleware_raises_counts_as_a_crash(
    autojump_clock: MockClock, shared: MemoryStorage, policy: Any
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop, options = Shop(), IdempotencyOptions(on_exception=policy)
        client = Client(BackgroundOperationsMiddleware(app_of(shop, Raising, "mount"), node.manager, options=options))
        with pytest.raises(TimeoutError):
            await client.post("/order")
        assert ((await client.post("/order")).problem, shop.runs) == ("outcome-unknown", 1)


@PLACES
async def test_the_key_of_an_endpoint_that_is_left_running_is_in_use_until_it_ends(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery, place: str
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        client = Client(BackgroundOperationsMiddleware(app_of(shop, LeavingAlone, place), node.manager))
        statuses: list[int] = []
        client.on_send = lambda message: statuses.append(message.get("status", 0))
        nursery.start_soon(client.post, "/order")
        await trio.sleep(5)
        assert statuses[0] == 504
        assert (await client.post("/order")).problem == "in-progress"
        await trio.sleep(10)
        assert (await client.post("/order")).problem == "outcome-unknown"
        assert (shop.runs, shop.ended) == (1, 1)


async def test_an_endpoint_that_declared_no_effect_runs_again_after_a_time_out(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(app_of(Shop(), TimeOut, "app"), node.manager))
        assert (await client.post("/order?no-effect=1")).status == 504
        assert (await client.post("/order?no-effect=1")).json == {"run": 2}


@pytest.mark.parametrize(("path", "layer", "status"), [("/order", Fallback, 202), ("/fails", ErrorPage, 503)])
@PLACES
async def test_an_answer_by_which_a_middleware_takes_over_is_stored(
    autojump_clock: MockClock, shared: MemoryStorage, path: str, layer: Any, status: int, place: str
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        client = Client(BackgroundOperationsMiddleware(app_of(shop, layer, place), node.manager))
        for replayed in (False, True):
            answer = await client.post(path)
            assert (answer.status, answer.replayed, shop.runs) == (status, replayed, 1)


async def test_the_last_call_of_an_endpoint_counts(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        client = Client(BackgroundOperationsMiddleware(app_of(shop, Retrying, "app"), node.manager))
        for replayed in (False, True):
            answer = await client.post("/order")
            assert (answer.json, answer.replayed) == ({"run": 2}, replayed)


@PLACES
@pytest.mark.parametrize("query", ["", "?length=1"])
async def test_a_broken_stream_that_a_middleware_completes_has_no_known_outcome(
    autojump_clock: MockClock, shared: MemoryStorage, place: str, query: str
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        client = Client(BackgroundOperationsMiddleware(app_of(shop, Passing, place), node.manager))
        with pytest.raises(RuntimeError, match="printer"):
            await client.post(f"/report{query}")
        assert ((await client.post(f"/report{query}")).problem, shop.runs) == ("outcome-unknown", 1)


async def test_a_body_that_is_shorter_than_announced_is_not_stored_as_whole(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        shop = Shop()
        await Passing(Route("/report", shop.report, methods=["POST"]).app)(scope, receive, send)

    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(app, node.manager))
        with pytest.raises(RuntimeError, match="printer"):
            await client.post("/report?length=1")
        assert (await client.post("/report?length=1")).problem == "outcome-unknown"
