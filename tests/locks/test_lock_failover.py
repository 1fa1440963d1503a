"""Locks over a real failover: what can go wrong there, and what makes it harmless."""

# ruff: noqa: PT012 - what raises is the end of a lock's body, so the body stands inside

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, LockLost
from dotmac.tasks.errors import StorageUnavailable
from dotmac.tasks.storage.redis import RedisStorage
from support.servers import Sentinels, sentinel

pytestmark = pytest.mark.redis
Make = Callable[..., RedisStorage]


@pytest.fixture
def watched() -> Iterator[Sentinels]:
    with sentinel() as servers:
        yield servers


def _url(servers: Sentinels) -> str:
    hosts = ",".join(f"{address}:{port}" for address, port in servers.addresses)
    return f"redis+sentinel://{hosts}/{servers.name}/0"


async def test_a_grant_that_was_not_replicated_is_lost_in_a_failover_and_the_fence_rises_over_it(
    watched: Sentinels, storage_of: Make
) -> None:
    """Cases 13 and 15: two holders for a moment, told apart by their fences; the first one is told at its renewal."""
    storage = storage_of(_url(watched), socket_timeout=60)
    async with BackgroundOperationsManager(storage=storage, worker_lease=600) as manager:
        async with manager.lock("before"):
            pass
        old = watched.primary
        fences: list[int] = []

        lost = trio.Event()

        async def first() -> None:
            with pytest.raises(LockLost):
                async with manager.lock("a", ttl=15) as held:
                    fences.append(held.fence)
                    await trio.sleep_forever()
            lost.set()

        replica = watched.replica
        replica.cli("REPLICAOF", "127.0.0.1", 1)  # nothing is replicated from here on
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            with trio.fail_after(60):
                while not fences:  # noqa: ASYNC110 - the server's answer
                    await trio.sleep(0.01)
            old.kill()
            await trio.to_thread.run_sync(lambda: watched.wait_for_primary(other_than=old))
            other = BackgroundOperationsManager(storage=storage_of(_url(watched), socket_timeout=60))
            with trio.fail_after(60):
                async with other, other.lock("a") as held:
                    assert held.fence > fences[0]
                    await lost.wait()


async def test_with_durability_on_replicas_an_unreplicated_grant_is_no_grant(
    watched: Sentinels, storage_of: Make
) -> None:
    """Case 15: refused with WAIT."""
    storage = storage_of(_url(watched), socket_timeout=5, durability="replica")
    async with BackgroundOperationsManager(storage=storage, worker_lease=600) as manager:
        async with manager.lock("a"):
            pass
        replica = watched.replica
        replica.pause()
        with pytest.raises(StorageUnavailable):
            async with manager.lock("a"):
                raise AssertionError("it would be lost in a failover")
        replica.resume()
        with trio.fail_after(60):
            while not await _can_lock(manager):  # noqa: ASYNC110 - the server announces nothing
                await trio.sleep(0.1)


async def _can_lock(manager: BackgroundOperationsManager) -> bool:
    try:
        async with manager.lock("a"):
            return True
    except StorageUnavailable:
        return False
