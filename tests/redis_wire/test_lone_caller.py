"""Who calls alone, and again and again, may find each reply there at once: it is the right one, and others get by."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
import trio.lowlevel

from dotmac.tasks.storage.redis.alone import LoneCaller
from dotmac.tasks.storage.redis.calls import Call
from dotmac.tasks.storage.redis.session import Session
from redis_wire.wire_helpers import client_of
from support.servers import Server

pytestmark = pytest.mark.redis

CALLS = 400
CALL: Any = None  # nobody looks at it


async def test_each_reply_belongs_to_its_call(server: Server, host: str) -> None:
    async with client_of(server.url, loop_host=host) as client:
        for number in range(CALLS):
            assert await client.execute("ECHO", str(number)) == str(number).encode()
        assert client.status()[0].unanswered == 0


async def test_other_tasks_have_their_turns_while_every_reply_is_found() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    caller = LoneCaller()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        ends = trio.current_time() + 30
        while turns < 5 and trio.current_time() < ends:
            await caller.let_others()
        nursery.cancel_scope.cancel()
    assert turns >= 5


async def test_who_shares_the_link_or_finds_nothing_looks_ever_more_rarely() -> None:
    looked, session = _looks(found=False)
    caller, me, other = LoneCaller(), trio.lowlevel.current_task(), object()
    for _ in range(CALLS):
        for task in (me, other):
            caller.ask(session, CALL, cast("trio.lowlevel.Task", task))
    assert not any(looked), "two who take turns are not alone"
    for _ in range(10_000):
        caller.ask(session, CALL, me)
    assert 5 < sum(patience > 0 for patience in looked) < 25, "a server that is far away is not waited for"


async def test_who_finds_replies_looks_for_each() -> None:
    looked, session = _looks(found=True)
    caller = LoneCaller()
    for _ in range(CALLS):
        caller.ask(session, CALL, trio.lowlevel.current_task())
    assert all(patience > 0 for patience in looked[10:])
    assert max(looked) <= 0.001, "nothing else runs meanwhile"


def _looks(*, found: bool) -> tuple[list[float], Session]:
    looked: list[float] = []

    class Conversation:
        def ask(self, _call: Call, patience: float) -> bool:
            looked.append(patience)
            return found

    return looked, cast("Session", Conversation())


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
