"""Answers without an endpoint behind them leave no record; answers of an endpoint always do."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Host, Mount, Route, Router
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsMiddleware,
    MemoryStorage,
    RouteRule,
    add_background_operations_middleware,
    idempotent_route,
)
from middleware.asgi_client import Client
from runtime.nodes import Node

_HOST = ("host", "shop.example")


class CopyingScope:
    """Passes on a copy of each scope."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(dict(scope), receive, send)


class Hidden:
    """Holds its app under another name than most."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


class ReadingBody(CopyingScope):
    """Answers by itself, after it has read the body."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await PlainTextResponse("no funds", 402)(scope, receive, send)


class Refusing(CopyingScope):
    """Answers by itself unless it is open."""

    is_open = False
    status = 503

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or type(self).is_open:
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("closed", self.status)(scope, receive, send)


class Raising(CopyingScope):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("mine")


class Dispatching(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        if "x-refuse" in request.headers:
            return PlainTextResponse("refused", 400)
        return await call_next(request)


class Shop:
    """A Starlette app that counts its orders."""

    def __init__(self) -> None:
        self.orders = 0
        self.routes = [
            Route("/orders", self.order, methods=["POST"]),
            Route("/slash/", self.order, methods=["POST"]),
            Route("/read", self.order, methods=["GET"]),
            Route("/answers/{status:int}", self.answers, methods=["POST"]),
            Mount("/mounted", routes=[Route("/orders", self.order, methods=["POST"])]),
            Mount(
                "/layers",
                app=GZipMiddleware(CopyingScope(Router([Route("/{status:int}", self.answers, methods=["POST"])]))),
            ),
            Mount("/opaque", app=self.opaque),
            Host("api.example", app=Router([Route("/hosted", self.order, methods=["POST"])])),
        ]

    async def order(self, _request: Request) -> Response:
        self.orders += 1
        return JSONResponse({"order": self.orders}, 201)

    async def answers(self, request: Request) -> Response:
        self.orders += 1
        if request.path_params["status"] == 307:
            return RedirectResponse("/orders")
        return PlainTextResponse(f"order {self.orders}", request.path_params["status"])

    async def opaque(self, scope: Any, receive: Any, send: Any) -> None:
        self.orders += 1
        await PlainTextResponse("opaque", 404)(scope, receive, send)


async def records(node: Node) -> int:
    return len((await node.manager.list_idempotency_keys()).keys)


def build(node: Node, shop: Shop, *inside: Any, **arguments: Any) -> Client:
    app = Starlette(
        routes=shop.routes,
        middleware=[Middleware(BackgroundOperationsMiddleware, manager=node.manager, **arguments), *inside],
    )
    return Client(app)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nope", 404), ("/read", 405), ("/slash", 307), ("/mounted/nope", 404), ("/layers/nope", 404),
        ("/layers/1/2", 404), ("/mounted/orders/", 307),
    ],
)  # fmt: skip
async def test_answers_of_a_router_leave_no_record(
    autojump_clock: MockClock, shared: MemoryStorage, path: str, status: int, copied: bool
) -> None:
    async with Node(shared, lambda _: None) as node:
        client = build(node, Shop(), *([Middleware(CopyingScope)] if copied else []))
        for _ in range(2):
            answer = await client.post(path, headers=[_HOST])
            assert (answer.status, answer.replayed) == (status, False)
        assert await records(node) == 0


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        "/orders",
        "/answers/400",
        "/answers/404",
        "/answers/307",
        "/answers/503",
        "/layers/404",
        "/opaque/1",
        "/mounted/orders",
    ],
)
async def test_answers_of_an_endpoint_are_stored(
    autojump_clock: MockClock, shared: MemoryStorage, path: str, copied: bool
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        client = build(node, shop, *([Middleware(CopyingScope), Middleware(Dispatching)] if copied else []))
        first = await client.post(path, headers=[_HOST])
        again = await client.post(path, headers=[_HOST])
        assert (again.status, again.body, again.replayed, shop.orders) == (first.status, first.body, True, 1)


@pytest.mark.parametrize(
    ("layer", "headers", "status"),
    [
        (Middleware(HTTPSRedirectMiddleware), [_HOST], 307),
        (Middleware(TrustedHostMiddleware, allowed_hosts=["other.example"]), [_HOST], 400),
        (Middleware(Refusing), [_HOST], 503),
        (Middleware(Dispatching), [_HOST, ("x-refuse", "1")], 400),
    ],
)
async def test_answers_of_a_middleware_inside_leave_no_record(
    autojump_clock: MockClock, shared: MemoryStorage, layer: Any, headers: Any, status: int
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        client = build(node, shop, layer)
        for _ in range(2):
            answer = await client.post("/orders", headers=headers)
            assert (answer.status, answer.replayed) == (status, False)
        assert (await records(node), shop.orders) == (0, 0)


async def test_a_middleware_that_reads_the_body_counts_as_an_endpoint(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Node(shared, lambda _: None) as node:
        client = build(node, Shop(), Middleware(ReadingBody))
        await client.post("/orders")
        assert (await client.post("/orders")).replayed


def with_layer(shop: Shop, layer: Any) -> list[Any]:
    """Routes with a layer of middleware between them and the router of the app."""
    inner = [Route("/orders", shop.order, methods=["POST"])]
    return [
        Mount("/mount", routes=inner, middleware=[Middleware(layer)]),
        Mount("/app", app=Starlette(routes=inner, middleware=[Middleware(layer)])),
        Route(
            "/route/orders", shop.order, methods=["POST"], middleware=[Middleware(layer), Middleware(GZipMiddleware)]
        ),
        Host("shop.example", app=Starlette(routes=inner, middleware=[Middleware(layer)])),
    ]


@pytest.mark.parametrize(("layer", "stored"), [(ReadingBody, True), (Refusing, False)])
@pytest.mark.parametrize("path", ["/mount/orders", "/app/orders", "/route/orders", "/orders"])
async def test_a_middleware_between_router_and_endpoint_counts_as_one_around_both(
    autojump_clock: MockClock, shared: MemoryStorage, path: str, layer: Any, stored: bool
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        shop.routes = with_layer(shop, layer)
        client = build(node, shop)
        await client.post(path, headers=[_HOST])
        assert (await client.post(path, headers=[_HOST])).replayed is stored
        shop.routes = with_layer(shop, CopyingScope)
        client = build(node, shop)
        for replayed in (False, True):
            answer = await client.post(path, key="passed", headers=[_HOST])
            assert (answer.status, answer.replayed, shop.orders) == (201, replayed, 1)


@pytest.mark.parametrize("path", ["/nope", "/mounted/nope"])
async def test_the_app_behind_a_router_is_an_endpoint(
    autojump_clock: MockClock, shared: MemoryStorage, path: str
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        shop.routes = [Mount("/mounted", app=Router(default=shop.opaque))]
        client = build(node, shop)
        client.app.router.default = shop.opaque
        large = await client.post(path, b"x" * 300_000, headers=[_HOST])
        again = await client.post(path, b"x" * 300_000, headers=[_HOST])
        assert (large.body, again.body, again.replayed, shop.orders) == (b"opaque", b"opaque", True, 1)


async def test_the_router_behind_a_router_is_none(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        client = build(node, shop)
        client.app.router.default = Starlette(routes=[Route("/more", shop.order, methods=["POST"])])
        for _ in range(2):
            assert not (await client.post("/nope", headers=[_HOST])).replayed
        assert (await records(node), shop.orders) == (0, 0)
        await client.post("/more", headers=[_HOST])
        assert ((await client.post("/more", headers=[_HOST])).replayed, shop.orders) == (True, 1)


async def test_a_function_s_word_for_another_method_is_its_answer(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop = Shop()
        client = build(node, shop)
        assert (await client.post("/answers/405", headers=[_HOST])).status == 405
        assert ((await client.post("/answers/405", headers=[_HOST])).replayed, shop.orders) == (True, 1)


async def test_an_error_page_for_a_middleware_s_exception_leaves_no_record(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Node(shared, lambda _: None) as node:
        inside = Starlette(routes=Shop().routes, middleware=[Middleware(Raising)])
        client = Client(BackgroundOperationsMiddleware(inside, node.manager))
        with pytest.raises(KeyError, match="mine"):
            await client.post("/orders")
        assert await records(node) == 0


async def test_an_exception_of_a_middleware_inside_leaves_no_record(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Node(shared, lambda _: None) as node:
        client = build(node, Shop(), Middleware(Raising))
        with pytest.raises(KeyError, match="mine"):
            await client.post("/orders")
        assert await records(node) == 0


async def test_a_request_that_follows_a_redirect_is_carried_out_under_its_strict_key(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Node(shared, lambda _: None) as node:
        client = build(node, Shop(), routes=[RouteRule("/**", strict=True)])
        assert (await client.post("/slash", headers=[_HOST])).status == 307
        assert (await client.post("/slash/", headers=[_HOST])).status == 201


async def test_a_route_of_a_newer_process_is_not_hidden_by_an_older_one(
    autojump_clock: MockClock, shared: MemoryStorage
) -> None:
    async with Node(shared, lambda _: None) as old, Node(shared, lambda _: None) as new:
        shop = Shop()
        without = Starlette(middleware=[Middleware(BackgroundOperationsMiddleware, manager=old.manager)])
        assert (await Client(without).post("/orders")).status == 404
        assert (await build(new, shop).post("/orders")).status == 201
        assert (await Client(without).post("/orders")).replayed


@pytest.mark.parametrize("outside", [False, True])
async def test_a_body_that_fastapi_refuses_can_be_corrected_under_the_same_key(
    autojump_clock: MockClock, shared: MemoryStorage, outside: bool
) -> None:
    async with Node(shared, lambda _: None) as node:
        app, client = _fastapi_shop(node, outside)
        json = [("content-type", "application/json")]
        refused = await client.post("/v1/orders", b'{"pieces": "many"}', headers=json)
        assert (refused.status, await records(node)) == (422, 0)
        for replayed in (False, True):
            answer = await client.post("/v1/orders", b'{"pieces": 2}', headers=json)
            assert (answer.status, answer.json, answer.replayed) == (200, {"pieces": 2}, replayed)
        assert app.state.orders == 1


async def test_a_route_may_store_refusals_of_its_parameters(autojump_clock: MockClock, shared: MemoryStorage) -> None:
    async with Node(shared, lambda _: None) as node:
        _, client = _fastapi_shop(node, outside=False, routes=[RouteRule("/v1/**", on_invalid="record")])
        await client.post("/v1/orders", b"{}")
        assert (await client.post("/v1/orders", b"{}")).replayed


@pytest.mark.parametrize("path", ["/v1/raises", "/v1/refuses"])
async def test_an_error_that_an_endpoint_raises_as_if_it_were_fastapi_s_is_stored(
    autojump_clock: MockClock, shared: MemoryStorage, path: str
) -> None:
    async with Node(shared, lambda _: None) as node:
        app, client = _fastapi_shop(node, outside=False)
        assert (await client.post(path)).status == 422
        assert ((await client.post(path)).replayed, app.state.orders) == (True, 1)


def _fastapi_shop(node: Node, outside: bool, **arguments: Any) -> tuple[FastAPI, Client]:
    app = FastAPI()
    app.state.orders = 0
    router = APIRouter(prefix="/v1", dependencies=[Depends(lambda: None)])

    async def order(pieces: dict[str, int]) -> dict[str, int]:
        app.state.orders += 1
        return pieces

    async def raises() -> None:
        app.state.orders += 1
        raise RequestValidationError([])

    async def refuses() -> None:
        app.state.orders += 1
        raise HTTPException(422)

    router.add_api_route("/orders", order, methods=["POST"])
    router.add_api_route("/raises", raises, methods=["POST"])
    router.add_api_route("/refuses", refuses, methods=["POST"])
    app.include_router(router)
    if outside:
        return app, Client(BackgroundOperationsMiddleware(app, node.manager, **arguments))
    add_background_operations_middleware(app, node.manager, **arguments)
    return app, Client(app)


@pytest.mark.parametrize("layers", [(), (GZipMiddleware,), (CopyingScope, GZipMiddleware), (Hidden,)])
async def test_a_decorator_is_found_behind_layers_of_middleware(
    autojump_clock: MockClock, shared: MemoryStorage, layers: Any
) -> None:
    shop = Shop()

    @idempotent_route(required=True)
    async def order(request: Request) -> Response:
        return await shop.order(request)

    async with Node(shared, lambda _: None) as node:
        sub: Any = Starlette(routes=[Route("/orders", order, methods=["POST"])])
        for layer in layers:
            sub = layer(sub)
        app = Starlette(routes=[Mount("/sub", app=sub), Host("api.example", app=sub)])
        client = Client(BackgroundOperationsMiddleware(app, node.manager))
        assert (await client.post("/sub/orders", key=None)).problem == "key-missing"
        hosted = await client.post("/orders", key=None, headers=[("host", "api.example")])
        assert (hosted.problem, shop.orders) == ("key-missing", 0)


@pytest.mark.parametrize(
    ("path", "host"),
    [("/v1/plain", None), ("/v1/mount/orders", None), ("/v1/inner/mount/orders", None), ("/v1/hosted", "h.example")],
)
async def test_routes_of_starlette_in_an_included_router(
    autojump_clock: MockClock, shared: MemoryStorage, path: str, host: str | None
) -> None:
    async with Node(shared, lambda _: None) as node:
        shop, app = Shop(), FastAPI()
        inner, router = APIRouter(), APIRouter()
        mounted = Starlette(routes=[Route("/orders", shop.order, methods=["POST"])])
        router.add_route("/plain", shop.order, methods=["POST"])
        for each in (inner, router):
            each.mount("/mount", mounted)
        router.include_router(inner, prefix="/inner")
        hosted = Starlette(routes=[Route("/hosted", shop.order, methods=["POST"])])
        router.routes.append(Host("h.example", hosted))
        app.include_router(router, prefix="/v1")
        client = Client(BackgroundOperationsMiddleware(app, node.manager))
        headers = [("host", host)] if host else [_HOST]
        for replayed in (False, True):
            answer = await client.post(path, b"x" * 300_000, headers=headers)
            assert (answer.status, answer.replayed, shop.orders) == (201, replayed, 1)
        await client.post(f"{path}/nope", key="nope", headers=headers)
        assert not (await client.post(f"{path}/nope", key="nope", headers=headers)).replayed
