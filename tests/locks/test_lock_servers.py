"""Locks on a real server that is cut off, frozen, flushed, restarted, full or busy; and what they cost it."""

# ruff: noqa: PT012 - what raises is the end of a lock's body, so the body stands inside

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, LockLost
from dotmac.tasks.errors import EnvironmentFault, StorageRefused, StorageUnavailable
from dotmac.tasks.fences import fenced_set, require_current
from dotmac.tasks.runtime.lock_actor import MOST_HANDOVERS
from dotmac.tasks.storage.records import LockGrant
from dotmac.tasks.storage.redis import RedisStorage
from locks.history import Visit, check
from storage.stored import lock
from support.proxy import Fault, FaultProxy
from support.servers import Server, standalone

pytestmark = pytest.mark.redis
Make = Callable[..., RedisStorage]


@pytest.fixture
async def manager(server: Server, storage_of: Make) -> AsyncIterator[BackgroundOperationsManager]:
    async with BackgroundOperationsManager(storage=storage_of(server.url)) as manager:
        yield manager


def _locks_keys(server: Server, prefix: str) -> dict[str, set[str]]:
    """Keys of locks, and the fields of those that are hashes."""
    found = {}
    for key in server.cli("KEYS", f"{{{prefix}:*}}:*"):
        kind = key.rpartition("}:")[2].partition(":")[0]
        if kind in ("l", "q", "w", "held"):
            found[kind] = set(server.cli("HKEYS", key)) if kind in ("l", "w") else set()
    return found


def _calls(server: Server, *commands: str) -> int:
    stats = str(server.cli("INFO", "commandstats")).splitlines()
    lines = [line for line in stats if line.startswith(tuple(f"cmdstat_{command}:" for command in commands))]
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines)


async def test_a_write_under_an_old_fence_is_refused_by_the_resource(
    manager: BackgroundOperationsManager, storage_of: Make, server: Server, prefix: str
) -> None:
    """Case 2: the lease ends unnoticed, the next holder writes, then the first one does."""
    client = manager.storage.client  # type: ignore[attr-defined] # any client will do

    async def write(value: str, fence: int) -> None:
        require_current(await client.execute(*fenced_set(f"{prefix}-resource", value, fence)), "resource", fence)

    async with manager.lock("a") as first:
        server.cli("FLUSHALL")  # as a failover does that loses the grant
        async with BackgroundOperationsManager(storage=storage_of(server.url)) as other, other.lock("a") as second:
            await write("second", second.fence)
            await write("second again", second.fence)
            with pytest.raises(LockLost, match="higher fence"):
                await write("first, late", first.fence)
    assert server.cli("GET", f"{prefix}-resource") == "second again"


async def test_a_frozen_server_ends_the_body_before_it_ends_the_lease(storage_of: Make) -> None:
    """Case 6, for real."""
    with standalone(aof=True) as server:
        async with BackgroundOperationsManager(storage=storage_of(server.url, socket_timeout=0.5)) as manager:
            with pytest.raises(LockLost):
                async with manager.lock("a", ttl=1.5) as held:
                    server.pause()
                    with trio.fail_at(held.deadline + 5):
                        await trio.sleep_forever()
            server.resume()


async def test_a_cancelled_body_leaves_no_key_but_the_fence(
    manager: BackgroundOperationsManager, server: Server, prefix: str
) -> None:
    """Case 8, and 22: after a storm of cancellations as well."""
    with trio.CancelScope() as scope:
        async with manager.lock("a"):
            scope.cancel()
            await trio.sleep_forever()
    assert _locks_keys(server, prefix) == {"l": {"f", "rel"}}

    async def fickle(seconds: float) -> None:
        with trio.move_on_after(seconds):
            async with manager.lock("a"):
                await trio.sleep(0.002)

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(fickle, number / 500)
    with trio.fail_after(10):
        while manager._hosted().locks._actors:  # noqa: ASYNC110 - they end by themselves, a moment later
            await trio.sleep(0.01)
    assert _locks_keys(server, prefix)["l"] <= {"f", "tk", "rel"}
    assert _locks_keys(server, prefix).keys() == {"l"}


async def test_ten_thousand_waiting_processes_cost_a_release_no_more_than_one(
    storage_of: Make, server: Server, prefix: str
) -> None:
    """Case 12: as the storage sees them, each one is a place in the queue."""
    storage, waiters = storage_of(server.url), 10_000
    async with storage.opened():
        assert isinstance(await storage.request_lock(lock("0")), LockGrant)

        async def arrive(start: int) -> None:
            # A hundred at once, in batches that leave in one write: in order of arrival, and quickly.
            async with trio.open_nursery() as nursery:
                for number in range(start, start + 100):
                    nursery.start_soon(storage.request_lock, lock(str(number), wait=600))

        for start in range(1, waiters, 100):
            await arrive(start)
        (record,) = await storage.list_locks(10)
        assert record.waiters == waiters
        await storage.free_lock("lock", "nobody")  # the server knows the script from here on
        server.cli("CONFIG", "RESETSTAT")
        holder = "0"
        for _ in range(200):
            await storage.free_lock("lock", holder)
            holder = server.cli("ZRANGE", next(iter(server.cli("KEYS", f"{{{prefix}:*}}:q:lock"))), 0, 0)[0]
            assert isinstance(await storage.request_lock(lock(holder, wait=600)), LockGrant)
        assert 400 <= _calls(server, "evalsha") <= 410  # a call is sent again when the machine is slow to answer
        assert _calls(server, "publish") == 200
        assert _calls(server, "zrange", "hget", "hset", "hdel", "zrem", "zadd", "hmget") <= 200 * 16


async def test_ten_thousand_tasks_of_a_process_cost_less_than_a_request_each(
    manager: BackgroundOperationsManager, server: Server
) -> None:
    """Case 12: local waiters stand in the storage's queue as one."""
    visits: list[Visit] = []

    async def caller() -> None:
        async with manager.lock("a") as held:
            visits.append(Visit(held.fence, len(visits), len(visits), ""))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery, manager.lock("a"):
        for _ in range(10_000):
            nursery.start_soon(caller)
        await trio.sleep(0.2)
        server.cli("CONFIG", "RESETSTAT")
    assert len(visits) == 10_000
    assert [visit.fence for visit in visits] == sorted({visit.fence for visit in visits})
    assert _calls(server, "evalsha") <= 10_000 / MOST_HANDOVERS * 3


@pytest.mark.parametrize("calamity", ["expiry", "flush", "restart"])
async def test_the_fence_rises_over_everything_that_forgets(storage_of: Make, calamity: str) -> None:
    """Case 13, as long as the server's clock does not go back. (Failover: see `test_lock_failover`.)"""
    with standalone(aof=False) as server:
        storage = storage_of(server.url)
        async with storage.opened():
            before = await storage.request_lock(lock("a", lease=0.1, fences=MOST_HANDOVERS))
            assert isinstance(before, LockGrant)
            if calamity == "flush":
                server.cli("FLUSHALL")
            elif calamity == "restart":
                server.kill()
                server.start()
            after = await storage.request_lock(lock("b"))
            with trio.fail_after(20):
                while not isinstance(after, LockGrant):
                    await trio.sleep(after.retry_after)
                    after = await storage.request_lock(lock("b"))
        assert after.fence > before.fence + MOST_HANDOVERS - 1


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.CUT_REPLY, Fault.DROP_REQUEST])
async def test_lost_answers_are_asked_for_again_and_mean_one_grant(
    server: Server, storage_of: Make, prefix: str, fault: Fault
) -> None:
    """Case 16, at each of the first requests of a lock's life."""
    fences: list[int] = []
    async with FaultProxy((server.host, server.port)) as proxy:
        for position in range(4):
            async with BackgroundOperationsManager(
                storage=storage_of(proxy.url), poll_interval=1000, worker_lease=1000
            ) as manager:
                for _ in range(2):
                    proxy.script(*[Fault.NONE] * position, fault)
                    async with manager.lock("a", ttl=30) as held:
                        fences.append(held.fence)
                        (info,) = await manager.list_locks()
                        assert info.fence == held.fence
                    proxy.calm()
                    assert await manager.list_locks() == []
    assert fences == sorted(set(fences))


async def test_a_flushed_script_cache_is_not_noticed_by_who_waits(
    manager: BackgroundOperationsManager, storage_of: Make, server: Server
) -> None:
    """Case 17."""
    got = trio.Event()

    async def waiter(other: BackgroundOperationsManager) -> None:
        async with other.lock("a"):
            got.set()

    async with BackgroundOperationsManager(storage=storage_of(server.url)) as other, trio.open_nursery() as nursery:
        async with manager.lock("a", ttl=0.5):
            nursery.start_soon(waiter, other)
            for _ in range(5):
                await trio.sleep(0.1)
                server.cli("SCRIPT", "FLUSH")
        with trio.fail_after(5):
            await got.wait()


@contextlib.contextmanager
def _full(server: Server) -> Any:
    server.cli("CONFIG", "SET", "maxmemory", "1")
    yield
    server.cli("CONFIG", "SET", "maxmemory", "0")


@contextlib.contextmanager
def _read_only(server: Server) -> Any:
    server.cli("REPLICAOF", "127.0.0.1", "1")
    yield
    server.cli("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def _frozen(server: Server) -> Any:
    server.pause()
    yield
    server.resume()


@pytest.mark.parametrize(
    ("trouble", "error"),
    [(_full, StorageRefused), (_read_only, EnvironmentFault), (_frozen, StorageUnavailable)],
    ids=["OOM", "READONLY", "frozen"],
)
async def test_a_server_that_cannot_grants_nothing_and_says_why(
    storage_of: Make, trouble: Callable[[Server], Any], error: type[Exception]
) -> None:
    """Case 18. (LOADING, BUSY and MOVED: the gateway's tests.)"""
    with standalone(aof=True) as server:
        async with BackgroundOperationsManager(
            storage=storage_of(server.url, socket_timeout=0.5), worker_lease=1000
        ) as manager:
            with trouble(server):
                for wait in (None, 0):
                    with pytest.raises(error):
                        async with manager.lock("a", wait=wait):
                            raise AssertionError("never granted")
            with trio.fail_after(20):
                while not await _can_lock(manager):  # noqa: ASYNC110 - the server announces nothing
                    await trio.sleep(0.05)


async def _can_lock(manager: BackgroundOperationsManager) -> bool:
    """Whether the server is back: its clients notice a moment later."""
    try:
        async with manager.lock("a"):
            return True
    except EnvironmentFault:
        return False


async def test_nothing_is_left_on_the_server_when_managers_are_gone(
    server: Server, storage_of: Make, prefix: str
) -> None:
    """Case 22."""
    visits: list[Visit] = []
    async with (
        BackgroundOperationsManager(storage=storage_of(server.url)) as one,
        BackgroundOperationsManager(storage=storage_of(server.url)) as two,
    ):

        async def caller(manager: BackgroundOperationsManager) -> None:
            for _ in range(20):
                async with manager.lock("a") as held:
                    entered = len(visits) * 2
                    await trio.sleep(0.001)
                    visits.append(Visit(held.fence, entered, entered + 1, ""))

        async with trio.open_nursery() as nursery:
            for manager in (one, two) * 5:
                nursery.start_soon(caller, manager)
        assert server.cli("PUBSUB", "CHANNELS", f"{prefix}:lock:*")
    assert len(visits) == 200
    check(visits)
    assert server.cli("PUBSUB", "CHANNELS", f"{prefix}:lock:*") == []
    assert _locks_keys(server, prefix).keys() == {"l"}


async def test_sagas_that_wait_for_the_lock_of_their_step_use_up_neither_time_nor_retries(
    manager: BackgroundOperationsManager,
) -> None:
    inside = most = 0

    async def pay(_parameters: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await trio.sleep(0.02)
        inside -= 1

    manager.register_operation_handler("pay", pay)
    step = {"name": "s", "operation": "pay", "lock": "account:1", "timeout_seconds": 0.2, "max_retries": 0}
    handles = [await manager.start_saga(tenant_id="t", workflow_type="w", steps=[step]) for _ in range(30)]
    with trio.fail_after(60):
        for handle in handles:
            assert (await handle.result()).completed
            assert (await handle.get()).steps[0].attempts == 1
    assert most == 1
