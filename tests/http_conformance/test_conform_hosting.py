"""Case 41, and the life of the runtime in a server."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from trio.testing import MockClock

from dotmac.tasks import (
    BackgroundOperationsManager,
    MemoryStorage,
    add_background_operations_middleware,
    idempotent_route,
)
from http_conformance.talk import Caller, replayed
from middleware.asgi_client import Client


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
