"""The ending of a request is stored once its response is complete, whatever the app or its server do after that."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsMiddleware, IdempotencyOptions, MemoryStorage
from middleware.apps import answer, app_of
from middleware.asgi_client import Client
from runtime.nodes import Node, refuse, until


async def no_endings(wire: Any, verb: str, call: Any) -> Any:
    """The storage takes no endings."""
    return await (refuse(wire, verb, call) if verb == "complete_record" else call())


class Background:
    """An app that goes on for a while after its response."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.over = False

    async def __call__(self, _scope: Any, _body: bytes, send: Any) -> None:
        await answer(send, 200, {"done": True})
        await trio.sleep(20)
        self.over = True
        if self.error is not None:
            raise self.error


async def test_a_late_ending_does_not_wait_for_a_background_task(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async with Node(shared, lambda _: None) as node, Node(shared, lambda _: None) as other:
        background = Background(None)
        client = Client(BackgroundOperationsMiddleware(app_of(background), node.manager))
        node.wire.fault = no_endings
        nursery.start_soon(client.post)
        await trio.sleep(8)
        node.wire.fault = None
        await trio.sleep(1)
        elsewhere = Client(BackgroundOperationsMiddleware(app_of(background), other.manager))
        again = await elsewhere.post()
        assert (again.json, again.replayed, background.over) == ({"done": True}, True, False)


async def test_an_error_after_a_complete_response_does_not_replace_it(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async with Node(shared, lambda _: None) as node:
        background = Background(KeyError("mine"))
        client = Client(BackgroundOperationsMiddleware(app_of(background), node.manager))
        node.wire.fault = no_endings

        async def post() -> None:
            with pytest.raises(KeyError, match="mine"):
                await client.post()

        nursery.start_soon(post)
        await until(lambda: background.over)
        node.wire.fault = None
        await trio.sleep(1)
        again = await client.post()
        assert (again.json, again.replayed) == ({"done": True}, True)


@pytest.mark.parametrize("policy", ["unknown", "rerun"])
async def test_a_cut_off_while_the_response_waits_for_the_storage_does_not_replace_it(
    autojump_clock: MockClock, shared: MemoryStorage, policy: Any
) -> None:
    async with Node(shared, lambda _: None) as node:
        client = Client(
            BackgroundOperationsMiddleware(
                app_of(Background(None)), node.manager, options=IdempotencyOptions(on_crash=policy)
            )
        )
        node.wire.fault = no_endings
        with trio.move_on_after(2):
            await client.post()
        node.wire.fault = None
        await trio.sleep(1)
        assert (await client.post()).replayed


async def test_a_stop_lets_late_endings_in(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery
) -> None:
    async with Node(shared, lambda _: None) as node:
        client = Client(BackgroundOperationsMiddleware(app_of(Background(None)), node.manager))
        node.wire.fault = no_endings
        nursery.start_soon(client.post)
        await trio.sleep(8)
        nursery.start_soon(node.manager.stop)
        await trio.sleep(2)
        node.wire.fault = None
        await trio.sleep(1)
    async with Node(shared, lambda _: None) as other:
        assert (await Client(BackgroundOperationsMiddleware(app_of(Background(None)), other.manager)).post()).replayed


# --- the app is being stopped -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "status"), [("unknown", 409), ("rerun", 200)])
async def test_the_end_of_the_app_waits_for_open_requests_and_then_cuts_them_off(
    autojump_clock: MockClock, shared: MemoryStorage, nursery: trio.Nursery, policy: Any, status: int
) -> None:
    async def lifespan(receive: Any, send: Any) -> None:
        for event in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{event}"
            await send({"type": f"lifespan.{event}.complete"})

    ends_at: dict[str, float] = {"/quick": 5, "/endless": 10_000}

    async def serve(scope: Any, _body: bytes, send: Any) -> None:
        await trio.sleep_until(ends_at[scope["path"]])
        await answer(send, 200, {})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (lifespan(receive, send) if scope["type"] == "lifespan" else app_of(serve)(scope, receive, send))

    node = Node(shared, lambda _: None)
    client = Client(BackgroundOperationsMiddleware(app, node.manager, options=IdempotencyOptions(on_crash=policy)))
    to_app, from_app = trio.open_memory_channel[Any](2), trio.open_memory_channel[Any](2)
    nursery.start_soon(client.app, {"type": "lifespan"}, to_app[1].receive, from_app[0].send)
    await to_app[0].send({"type": "lifespan.startup"})
    assert (await from_app[1].receive())["type"] == "lifespan.startup.complete"
    answers: dict[str, Any] = {}

    async def post(path: str) -> None:
        answers[path] = await client.post(path)

    for path in ends_at:
        nursery.start_soon(post, path)
    await trio.sleep(1)
    await to_app[0].send({"type": "lifespan.shutdown"})
    assert (await from_app[1].receive())["type"] == "lifespan.shutdown.complete"
    assert answers["/quick"].status == 200
    assert answers["/endless"].problem == "claim-lost"
    ends_at["/endless"] = 0
    async with Node(shared, lambda _: None) as other:
        again = Client(BackgroundOperationsMiddleware(app, other.manager))
        assert (await again.post("/quick")).replayed
        assert (await again.post("/endless")).status == status


@pytest.mark.parametrize(("policy", "status"), [("unknown", 409), ("rerun", 201)])
async def test_a_cut_off_counts_as_the_route_says_of_a_crash(
    autojump_clock: MockClock, shared: MemoryStorage, policy: Any, status: int
) -> None:
    hold = trio.Event()

    async def serve(_scope: Any, _body: bytes, send: Any) -> None:
        await hold.wait()
        await answer(send, 201, {})

    async with Node(shared, lambda _: None) as node:
        client = Client(
            BackgroundOperationsMiddleware(app_of(serve), node.manager, options=IdempotencyOptions(on_crash=policy))
        )
        with trio.move_on_after(1):
            await client.post()
        hold.set()
        assert (await client.post()).status == status
