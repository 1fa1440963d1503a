"""Plain handlers that hold all their threads: the engine goes on, and parents get their children, in every host."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import trio

from bridge.hosts import Host, run_asyncio, under_another_trio, under_asyncio, under_trio, under_uvloop
from dotmac.tasks import BackgroundOperationsManager, MemoryStorage
from dotmac.tasks.storage.redis import RedisStorage
from support.servers import Server, standalone

HOSTS = [under_trio, under_asyncio, under_uvloop, under_another_trio]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with standalone(aof=True) as server:
        yield server


def saga(operation: str, **fields: Any) -> dict[str, Any]:
    steps = [{"name": "s", "operation": operation, "max_retries": 0, **fields}]
    return {"tenant_id": "t", "workflow_type": "w", "steps": steps}


def family(manager: BackgroundOperationsManager) -> None:
    """Plain parents, each of which waits for a plain child."""

    def parent(_parameters: Any) -> Any:
        return manager.sync.start_saga(**saga("child")).result().results["s"]

    manager.register_operation_handler("parent", parent)
    manager.register_operation_handler("child", lambda _parameters: "child")


async def have_children(manager: BackgroundOperationsManager) -> None:
    handles = [await manager.start_saga(**saga("parent")) for _ in range(40)]
    for handle in handles:
        assert (await handle.result()).results == {"s": "child"}


@pytest.mark.parametrize("host", HOSTS)
def test_forty_plain_parents_get_their_plain_children(host: Host[Any]) -> None:
    manager = BackgroundOperationsManager(MemoryStorage())
    family(manager)
    host(manager, have_children)


@pytest.mark.redis
@pytest.mark.parametrize("host", [under_trio, under_asyncio])
def test_forty_plain_parents_get_their_plain_children_on_a_server(server: Server, host: Host[Any]) -> None:
    manager = BackgroundOperationsManager(RedisStorage(server.url, prefix=f"family-{host.__name__}"))
    family(manager)
    host(manager, have_children)


@pytest.mark.parametrize("host", HOSTS)
def test_async_parents_get_their_async_children_in_every_host(host: Host[Any]) -> None:
    manager = BackgroundOperationsManager(MemoryStorage(), max_running=3)

    async def parent(_parameters: Any) -> Any:
        return (await (await manager.start_saga(**saga("child"))).result()).results["s"]

    async def child(_parameters: Any) -> str:
        return "child"

    manager.register_operation_handler("parent", parent)
    manager.register_operation_handler("child", child, concurrency=1)
    host(manager, have_children)


async def test_a_parent_gets_its_child_from_a_manager_that_only_submits() -> None:
    storage = MemoryStorage()
    worker = BackgroundOperationsManager(storage, sync_handler_threads=1, max_running=1)
    client = BackgroundOperationsManager(storage, works=False)
    results: list[Any] = []

    def parent(_parameters: Any) -> Any:
        return client.sync.start_saga(**saga("child")).result().results["s"]

    worker.register_operation_handler("parent", parent)
    worker.register_operation_handler("child", lambda _parameters: "child")
    async with worker, client:
        with trio.fail_after(30):
            results.append((await (await worker.start_saga(**saga("parent"))).result()).results)
    assert results == [{"s": "child"}]


@pytest.mark.redis
@pytest.mark.parametrize("host", [under_trio, under_asyncio])
def test_a_connection_is_made_again_while_every_handler_thread_hangs(server: Server, host: Host[Any]) -> None:
    """Looking up the name of the server takes a thread."""
    url = server.url.replace("127.0.0.1", "localhost")
    assert "localhost" in url
    manager = BackgroundOperationsManager(
        RedisStorage(url, prefix=f"hang-{host.__name__}"), worker_lease=3, sync_handler_threads=50
    )
    leave, calls = threading.Event(), []

    def hang(_parameters: Any) -> None:
        calls.append(1)
        leave.wait()

    async def program(manager: BackgroundOperationsManager) -> None:
        try:
            handles = [await manager.start_saga(**saga("hang")) for _ in range(50)]
            while len(calls) < 50:  # noqa: ASYNC110 - threads have no event of this loop
                await anyio.sleep(0.01)
            (before,) = await manager.list_workers()
            server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            (after,) = await manager.list_workers()
            assert after.worker_id == before.worker_id
        finally:
            leave.set()
        for handle in handles:
            assert (await handle.result()).completed

    manager.register_operation_handler("hang", hang)
    host(manager, program)
    assert len(calls) == 50


@pytest.mark.redis
def test_a_connection_is_made_again_while_a_program_holds_trio_s_own_threads(server: Server) -> None:
    url = server.url.replace("127.0.0.1", "localhost")
    manager = BackgroundOperationsManager(RedisStorage(url, prefix="trio-threads"))

    async def program(manager: BackgroundOperationsManager) -> None:
        threads = trio.to_thread.current_default_thread_limiter()
        borrowers = [object() for _ in range(int(threads.total_tokens))]
        for borrower in borrowers:
            threads.acquire_on_behalf_of_nowait(borrower)
        server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await manager.list_workers()
        for borrower in borrowers:
            threads.release_on_behalf_of(borrower)

    under_trio(manager, program)


@pytest.mark.redis
def test_a_manager_is_examined_while_a_program_holds_anyio_s_own_threads(server: Server) -> None:
    async def program() -> None:
        threads = anyio.to_thread.current_default_thread_limiter()
        threads.total_tokens = 1
        threads.acquire_on_behalf_of_nowait("a hanging endpoint")
        assert await BackgroundOperationsManager(RedisStorage(server.url)).examine()

    run_asyncio(program)
