"""The storage is gone, full, read-only, loading or asleep while sagas run: nothing is lost, invented or hidden."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from degradation.house import House, house, until
from degradation.troubles import ALL_TROUBLES, HICCUPS, TROUBLES
from dotmac.tasks.errors import EnvironmentFault, OwnershipLost, StorageRefused, StorageUnavailable
from support.servers import Server

pytestmark = pytest.mark.redis
Call = Callable[[], Awaitable[object]]
MUST_FAIL_WITHIN = 15.0  # seconds: the 0.5 s of the socket, or the 5 s that a call waits for a worker, and plenty
CLEAR = {
    "gone": "cannot connect|connection .* lost",
    "paused": "did not answer|has not answered|Timeout",
    "full": "is full: raise its maxmemory",
    "read-only": "is read-only|is no master any more|it said: READONLY",
    "loading": "is still loading|did not answer|cannot connect|connection .* lost",
}


@pytest.mark.parametrize("kind", ALL_TROUBLES)
async def test_a_step_finishes_and_its_saga_goes_on_when_the_server_is_well_within_the_lease(
    server: Server, kind: str
) -> None:
    async with house(server, worker_lease=30.0) as home:
        handle = await home.start("a", "b")
        await until(lambda: home.begun == ["a 1"])
        async with ALL_TROUBLES[kind](server):
            home.gate.set()
            await until(lambda: home.failed("append"))
            assert home.ended == ["a 1"]
        with trio.fail_after(30):
            outcome = await handle.result()
        assert outcome.completed
        assert home.begun == home.ended == ["a 1", "b 1"]
        assert (await handle.get()).epoch == 1
        assert not unexpected(home)


@pytest.mark.parametrize("kind", ALL_TROUBLES)
async def test_a_step_is_cancelled_when_the_lease_ends_and_resumed_by_a_new_worker(server: Server, kind: str) -> None:
    async with house(server, worker_lease=1.0) as home:
        handle = await home.start("a", "b")
        await until(lambda: home.begun == ["a 1"])
        async with ALL_TROUBLES[kind](server):
            await until(lambda: home.cut == ["a 1"])
            assert home.begun == ["a 1"]
        await until(lambda: home.begun == ["a 1", "a 2"], seconds=30)
        home.gate.set()
        with trio.fail_after(30):
            assert (await handle.result()).completed
        assert home.ended == ["a 2", "b 1"]
        assert home.fences[1] > home.fences[0]
        assert not unexpected(home)


@pytest.mark.parametrize("kind", TROUBLES)
async def test_new_calls_say_clearly_what_is_the_matter(server: Server, kind: str) -> None:
    async with house(server, worker_lease=30.0) as home:
        home.gate.set()
        ended = await home.start("a")
        manager, before = home.manager, await ended.result()
        key: dict[str, Any] = {"tenant_id": "t", "operation_type": "act"}
        calls: list[Call] = [
            lambda: home.start("a"),
            lambda: manager.run_idempotent(**key),
            lambda: manager.create_idempotency_key(**key, user_id=None, key="k"),
        ]
        if kind in ("gone", "paused"):  # the others still answer questions, now or in a moment
            calls += [lambda: manager.check_idempotency("k"), manager.list_sagas, ended.get, ended.result]
        async with TROUBLES[kind](server):
            for call in calls:
                await refuses(call, CLEAR[kind])
        with trio.fail_after(30):
            assert (await (await eventually_starts(home)).result()).completed
            assert await at_last(ended.result) == before
            assert await manager.run_idempotent(**key) is None
        assert not unexpected(home)


@pytest.mark.parametrize("kind", ["gone", "full"])
async def test_a_process_that_lost_its_worker_says_why(server: Server, kind: str) -> None:
    async with house(server, worker_lease=1.0) as home:
        home.gate.set()
        async with TROUBLES[kind](server):
            await until(lambda: home.worker is None)
            await refuses(lambda: home.start("a"), f"no worker.*({CLEAR[kind]})")
        with trio.fail_after(30):
            assert (await (await eventually_starts(home)).result()).completed


async def test_who_may_not_listen_waits_for_a_saga_by_looking(server: Server) -> None:
    server.cli("ACL", "SETUSER", "default", "-subscribe")
    async with house(server, worker_lease=30.0) as home, house(server, worker_lease=30.0) as elsewhere:
        handle = await home.start("a")
        await until(lambda: home.begun == ["a 1"])
        home.gate.set()
        with trio.fail_after(30):
            assert (await elsewhere.manager.saga_handle(handle.saga_id).result()).completed


async def refuses(call: Call, text: str) -> None:
    with trio.fail_after(MUST_FAIL_WITHIN), pytest.raises((StorageUnavailable, StorageRefused), match=text):
        await call()


async def eventually_starts(home: House) -> Any:
    return await at_last(lambda: home.start("a"))


async def at_last(call: Call) -> Any:
    """Ask until the server is reached again: each connection takes its own time for that."""
    while True:
        try:
            return await call()
        except EnvironmentFault:
            await trio.sleep(0.05)


@pytest.mark.parametrize("kind", HICCUPS)
async def test_a_hiccup_of_the_server_is_not_noticed(server: Server, kind: str) -> None:
    async with house(server, socket_timeout=10.0, worker_lease=30.0) as home:
        running = await home.start("a", "b")
        await until(lambda: home.begun == ["a 1"])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HICCUPS[kind], server)
            another = await home.start("a")
            home.gate.set()
            with trio.fail_after(30):
                assert (await running.result()).completed
                assert (await another.result()).completed
        assert sorted(home.begun) == sorted(home.ended) == ["a 1", "a 1", "b 1"]
        assert not home.failures


def unexpected(home: House) -> list[tuple[str, Exception]]:
    """Failures of the storage that are neither its own nor the loss of a lease."""
    return [(verb, error) for verb, error in home.failures if not isinstance(error, EnvironmentFault | OwnershipLost)]
