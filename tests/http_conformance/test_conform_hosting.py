"""Case 41, and the life of the runtime in a server."""

from __future__ import annotations

from uuid import uuid4

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    MemoryStorage,
    RouteRule,
    add_background_operations_middleware,
    idempotent_route,
)
from http_conformance.sites import Ledger, serving
from http_conformance.talk import Caller, calling, replayed, slug
from middleware.asgi_client import Client
from support.servers import Server


async def test_case_41_a_mounted_route_is_another_path(caller: Caller) -> None:
    outer, mounted = await caller.send("/effect"), await caller.send("/mounted/effect")
    assert (outer.json()["run"], mounted.json()["run"]) == (1, 2)
    assert replayed(await caller.send("/mounted/effect"))


async def test_case_41_context_variables_flow_both_ways(caller: Caller) -> None:
    flow = {"X-Flow": "1"}
    assert (await caller.send("/flow", headers=flow)).text == "outside 1"
    await caller.noted("flow inside")
    assert replayed(await caller.send("/flow", headers=flow))
    await caller.noted("flow outside")  # the handler did not run
    assert caller.entries == ["ran", "flow inside", "flow outside"]


@pytest.mark.parametrize("repeats_root_path", [False, True], ids=["path without it", "path with it"])
async def test_case_41_an_app_below_a_root_path(autojump_clock: MockClock, repeats_root_path: bool) -> None:
    """Servers differ in whether `path` repeats `root_path`; the options are found and keys kept apart either way."""
    runs: list[str] = []

    @idempotent_route(required=True)
    async def order(request: Request) -> Response:
        runs.append(request.scope["root_path"])
        return PlainTextResponse(f"{len(runs)}")

    app = Starlette(routes=[Route("/order", order, methods=["POST"])])
    manager = add_background_operations_middleware(app, BackgroundOperationsManager(MemoryStorage()))
    client = Client(app)
    async with manager:
        for root_path in ("/one", "/two"):
            path = f"{root_path}/order" if repeats_root_path else "/order"
            assert (await client.post(path, key=None, root_path=root_path)).problem == "key-missing"
            first = await client.post(path, root_path=root_path)
            again = await client.post(path, root_path=root_path)
            assert (first.replayed, again.replayed, again.body) == (False, True, first.body)
    assert runs == ["/one", "/two"]


@pytest.mark.parametrize("repeats_root_path", [False, True], ids=["path without it", "path with it"])
@pytest.mark.parametrize("pattern", ["/orders/*", "/api/orders/*"], ids=["of the routes", "of the client"])
async def test_case_41_a_rule_holds_below_a_root_path(
    autojump_clock: MockClock, pattern: str, repeats_root_path: bool
) -> None:
    """What a proxy puts before the paths must not put a rule out of force."""

    async def order(_request: Request) -> Response:
        return PlainTextResponse("done")

    app = Starlette(routes=[Route("/orders/{number}", order, methods=["POST"])])
    manager = add_background_operations_middleware(
        app, BackgroundOperationsManager(MemoryStorage()), routes=[RouteRule(pattern, required=True)]
    )
    client = Client(app)
    async with manager:
        path = "/api/orders/1" if repeats_root_path else "/orders/1"
        assert (await client.post(path, key=None, root_path="/api")).problem == "key-missing"


@pytest.mark.redis
@pytest.mark.parametrize("kind", ["hypercorn-trio", "uvicorn"])
async def test_case_41_a_server_below_a_root_path(kind: str, ledger: Ledger, records_server: Server) -> None:
    """Behind a proxy that leaves the path as it is (Hypercorn), or one that cuts the root path off (uvicorn)."""
    prefix, left = f"below-{uuid4().hex[:8]}", kind == "hypercorn-trio"
    with (
        serving(kind, ledger, records_server, prefix, root_path="/one") as one,
        serving(kind, ledger, records_server, prefix, root_path="/two") as two,
    ):
        async with calling(one) as caller:
            path, other = ("/one/mounted/required", "/two/mounted/required") if left else ("/mounted/required",) * 2
            assert slug(await caller.send(path, key="")) == "key-missing"
            first, again = await caller.send(path), await caller.send(path)
            assert (first.status_code, replayed(first), replayed(again)) == (201, False, True)
            elsewhere = await caller.at(two).send(other)
            assert (elsewhere.status_code, replayed(elsewhere), caller.runs) == (201, False, 2)
