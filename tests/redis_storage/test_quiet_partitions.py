"""To stand by costs next to nothing: what was found empty is not asked again until something can be there."""

from __future__ import annotations

from uuid import uuid4

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.storage.redis import RedisStorage
from storage.stored import LONG, put_saga
from support.servers import Server

pytestmark = pytest.mark.redis
PARTITIONS = 16


@pytest.fixture
def storage(server: Server) -> RedisStorage:
    return RedisStorage(server.url, prefix=f"test-{uuid4().hex[:8]}", partitions=PARTITIONS)


def scripts_run(server: Server) -> int:
    lines = str(server.cli("INFO", "commandstats")).splitlines()
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines if "evalsha:" in line)


async def test_a_glance_asks_only_where_something_can_be(server: Server, storage: RedisStorage) -> None:
    async with storage.opened():
        await put_saga(storage, due_at=storage.now() + LONG)
        assert await storage.due_sagas(10, max_age=LONG) == []
        before = scripts_run(server)
        for _ in range(5):
            assert await storage.due_sagas(10, max_age=LONG) == []
        assert scripts_run(server) == before
        saga = await put_saga(storage, due_at=storage.now())  # nobody listens, and a glance need not find it
        assert [due.saga_id for due in await storage.due_sagas(10)] == [saga.saga_id]
        before = scripts_run(server)
        assert [due.saga_id for due in await storage.due_sagas(10, max_age=LONG)] == [saga.saga_id]
        assert scripts_run(server) == before + 1


async def test_what_was_known_of_one_server_is_forgotten_when_the_storage_is_opened_again(
    server: Server, storage: RedisStorage
) -> None:
    async with storage.opened():
        prefix = storage.layout.prefix
        assert await storage.due_sagas(10, max_age=LONG) == []
        assert await storage.list_workers(max_age=LONG) == []
    other = RedisStorage(server.url, prefix=prefix)
    async with other.opened():
        saga = await put_saga(other, due_at=other.now())
        owned = await put_saga(other, owner="late")
    async with storage.opened():
        assert [due.saga_id for due in await storage.due_sagas(10, max_age=LONG)] == [saga.saga_id]
        assert [worker.worker_id for worker in await storage.list_workers(max_age=LONG)] == ["late"]
        assert [each.saga_id for each in await storage.orphaned_sagas("late", 10)] == [owned.saga_id]


async def test_an_idle_runtime_hardly_asks_its_server(server: Server, storage: RedisStorage) -> None:
    """Counted over many short polls, so that it takes no time; a poll costs the same whatever its interval."""
    async with BackgroundOperationsManager(storage, poll_interval=0.02):
        await trio.sleep(0.1)
        before = scripts_run(server)
        asked = _asked(server)
        with trio.fail_after(30):
            while _asked(server) < asked + 40:  # noqa: ASYNC110 - what the server counts announces itself to nobody
                await trio.sleep(0.02)
        # In forty polls, some four to eight sweeps of two scripts over all partitions; else it were eighty.
        assert scripts_run(server) - before < 40 * 2 * PARTITIONS / 3


def _asked(server: Server) -> int:
    """How often the workers' infos were read: once a poll."""
    lines = str(server.cli("INFO", "commandstats")).splitlines()
    return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines if "hgetall:" in line)
