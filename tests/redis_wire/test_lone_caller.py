"""Who calls alone, and again and again, may find each reply there at once: it is the right one, and others get by."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel

from redis_wire.wire_helpers import client_of
from support.servers import Server

pytestmark = pytest.mark.redis

CALLS = 400


async def test_each_reply_belongs_to_its_call(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client:
        for number in range(CALLS):
            assert await client.execute("ECHO", str(number)) == str(number).encode()
        assert client.status()[0].unanswered == 0


async def test_other_tasks_have_their_turns(server: Server, host: str) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with client_of(server.url, loop_host=host) as client, trio.open_nursery() as nursery:
        await client.execute("PING")
        nursery.start_soon(count)
        for _ in range(CALLS):
            await client.execute("PING")
        nursery.cancel_scope.cancel()
    assert turns >= CALLS // 8


async def test_several_who_call_in_turn_get_their_own_replies(server: Server, host: str) -> None:
    async def call(name: str) -> None:
        for number in range(CALLS):
            expected = f"{name} {number}"
            assert await client.execute("ECHO", expected) == expected.encode()
            if number % 7 == 0:
                await trio.lowlevel.checkpoint()

    async with client_of(server.url, loop_host=host) as client, trio.open_nursery() as nursery:
        for name in ("one", "two", "three"):
            nursery.start_soon(call, name)


async def test_a_cancelled_lone_caller_leaves_the_order_of_replies_alone(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client:
        for number in range(CALLS):
            with trio.CancelScope() as scope:
                if number % 3 == 0:
                    scope.cancel()
                await client.execute("ECHO", f"lost {number}")
            assert await client.execute("ECHO", str(number)) == str(number).encode()
