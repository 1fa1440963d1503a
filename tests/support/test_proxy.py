"""The fault-injecting proxy: each fault does what its name says, to one request, and no other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from support.proxy import Fault, FaultProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Upstream:
    """Answers each request with 'reply to <request>', and remembers the requests."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            async for request in stream:
                self.seen.append(bytes(request))
                await stream.send_all(b"reply to " + request)


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Upstream, FaultProxy]]:
    upstream = Upstream()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, upstream.serve, listeners)
        async with FaultProxy(("127.0.0.1", listeners[0].socket.getsockname()[1])) as proxy:
            yield upstream, proxy
        nursery.cancel_scope.cancel()


async def ask(stream: trio.SocketStream, request: bytes) -> bytes:
    await stream.send_all(request)
    return bytes(await stream.receive_some())


async def connect(proxy: FaultProxy) -> trio.SocketStream:
    return await trio.open_tcp_stream(proxy.host, proxy.port)


async def test_passes_what_no_fault_hits() -> None:
    async with proxied() as (upstream, proxy), await connect(proxy) as stream:
        assert await ask(stream, b"one") == b"reply to one"
        assert await ask(stream, b"two") == b"reply to two"
        assert upstream.seen == [b"one", b"two"]


@pytest.mark.parametrize(
    ("fault", "reply", "carried_out"),
    [
        (Fault.DROP_REQUEST, b"", False),
        (Fault.LOSE_REPLY, b"", True),
        (Fault.CUT_REPLY, b"reply ", True),
        (Fault.DELAY, b"reply to one", True),
    ],
)
async def test_fault_hits_the_next_request(fault: Fault, reply: bytes, *, carried_out: bool) -> None:
    async with proxied() as (upstream, proxy):
        proxy.script(fault)
        async with await connect(proxy) as stream:
            assert await ask(stream, b"one") == reply
            if fault is not Fault.DELAY:
                assert await stream.receive_some() == b""
        assert upstream.seen == ([b"one"] if carried_out else [])
        async with await connect(proxy) as stream:
            assert await ask(stream, b"two") == b"reply to two"
        assert proxy.history == [fault, Fault.NONE]


@pytest.mark.parametrize(("fault", "carried_out"), [(Fault.STALL_REQUEST, False), (Fault.STALL_REPLY, True)])
async def test_stalled_connection_stays_open_and_silent(fault: Fault, *, carried_out: bool) -> None:
    async with proxied() as (upstream, proxy):
        proxy.script(fault)
        async with await connect(proxy) as stream:
            with trio.move_on_after(0.05) as silence:
                await ask(stream, b"one")
            assert silence.cancelled_caught
            with trio.fail_after(10):
                while not (upstream.seen if carried_out else proxy.history):  # noqa: ASYNC110 - no hook on the wire
                    await trio.sleep(0.001)
            assert upstream.seen == ([b"one"] if carried_out else [])
            assert proxy.open_connections == 1


async def test_everything_can_be_cut_and_refused() -> None:
    async with proxied() as (_, proxy):
        async with await connect(proxy) as stream:
            assert await ask(stream, b"one") == b"reply to one"
            proxy.accepting = False
            proxy.drop_all()
            assert await stream.receive_some() == b""
        async with await connect(proxy) as stream:
            assert await stream.receive_some() == b""


async def test_absent_upstream_ends_the_connection() -> None:
    async with FaultProxy("/nonexistent/socket") as proxy, await connect(proxy) as stream:
        assert await stream.receive_some() == b""


async def test_same_seed_draws_the_same_faults() -> None:
    odds = {Fault.DELAY: 0.5}
    histories = []
    for _ in range(2):
        async with proxied() as (_, proxy):
            proxy.delay = 0
            proxy.randomize(7, odds)
            async with await connect(proxy) as stream:
                for _ in range(20):
                    await ask(stream, b"one")
            histories.append(proxy.history)
            assert proxy.describe().startswith("seed=7 script(Fault.")
            proxy.calm()
    assert histories[0] == histories[1]
    assert {Fault.DELAY, Fault.NONE} == set(histories[0])
