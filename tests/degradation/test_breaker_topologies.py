"""The circuit breaker in a Cluster, behind Sentinels, and below an application of asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.hosts import under_asyncio
from degradation.house import until
from degradation.test_circuit_breaker import MANY, MANY_IN, SOCKET_TIMEOUT, client_of, told
from dotmac.tasks import (
    BackgroundOperationsManager,
    BackgroundOperationsMiddleware,
    IdempotencyOptions,
    StorageRefused,
    StorageUnavailable,
)
from dotmac.tasks.storage.redis import RedisStorage
from dotmac.tasks.storage.redis.gateway import RedisClient
from support.servers import Cluster, Server, cluster, sentinel

pytestmark = pytest.mark.redis


async def fails_many_times_at_once(call: Callable[[], Any]) -> None:
    with trio.fail_after(MANY_IN):
        for _ in range(MANY):
            with pytest.raises(StorageUnavailable):
                await call()


def a_key_of(nodes: Cluster, primary: Server) -> str:
    return next(f"k{number}" for number in range(1000) if nodes.owner_of(nodes.slot_of(f"k{number}")) is primary)


def is_away(client: RedisClient, node: Server) -> bool:
    return any(link.away for link in client.status() if link.name.endswith(f":{node.port}"))


async def works_again(call: Callable[[], Any]) -> None:
    with trio.fail_after(60):
        while True:
            try:
                assert await call() == b"OK"
            except (StorageUnavailable, StorageRefused):  # a node that returns has yet to hear from its Cluster
                await trio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize("replicas", [0, 1], ids=["returns", "fails over"])
async def test_a_lost_primary_of_a_cluster_fails_only_its_own_slots(replicas: int) -> None:
    with cluster(3, replicas) as nodes:
        lost, other = nodes.primaries[1], nodes.primaries[2]
        theirs, ours = a_key_of(nodes, lost), a_key_of(nodes, other)
        async with client_of(nodes.url.replace("redis://", "redis+cluster://")) as client:

            async def write_theirs() -> Any:
                return await client.execute("SET", theirs, 1, key=theirs, repeatable=True)

            await write_theirs()
            with told() as seen:
                await trio.to_thread.run_sync(lost.kill)
                with pytest.raises(StorageUnavailable):
                    await write_theirs()
                if not replicas:
                    await until(lambda: is_away(client, lost))
                    await fails_many_times_at_once(write_theirs)
                for _ in range(MANY):
                    assert await client.execute("SET", ours, 1, key=ours) == b"OK"
                if not replicas:
                    await trio.to_thread.run_sync(lost.start)
                await works_again(write_theirs)
            assert seen.count("opened") == seen.count("closed")
            assert not any(link.away for link in client.status())


async def test_a_failover_by_sentinels_closes_the_breaker() -> None:
    with sentinel(down_after=3.0) as servers:
        hosts = ",".join(f"{address}:{port}" for address, port in servers.addresses)
        async with client_of(f"redis+sentinel://{hosts}/{servers.name}/0") as client:
            with told() as seen:
                first = servers.primary
                await trio.to_thread.run_sync(first.kill)
                with pytest.raises(StorageUnavailable):
                    await client.execute("PING")
                await until(lambda: client.status()[0].away)
                await fails_many_times_at_once(lambda: client.execute("PING"))
                assert seen == ["opened"]
                await works_again(lambda: client.execute("SET", "k", 1, repeatable=True))
            assert seen == ["opened", "closed"]
            assert servers.primary is not first


def test_keyed_requests_of_an_asyncio_application_are_answered_while_the_breaker_is_open(server: Server) -> None:
    ran: list[str] = []

    async def order(_request: Request) -> Response:
        ran.append("order")
        return JSONResponse({})

    async def program(manager: Any) -> None:
        options = IdempotencyOptions(on_storage_error="reject")
        app = BackgroundOperationsMiddleware(
            Starlette(routes=[Route("/", order, methods=["POST"])]), manager, options=options
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:

            async def send(key: str) -> int:
                headers = {"Idempotency-Key": f'"{key}"', "X-Tenant-ID": "t"}
                return (await client.post("/", headers=headers)).status_code

            assert await send("before") == 200
            with told() as seen:
                server.kill()
                assert await send("first") == 503
                async with asyncio.timeout(20):
                    while "opened" not in seen:  # noqa: ASYNC110 - a thread of the runtime tells it
                        await asyncio.sleep(0.01)
                async with asyncio.timeout(MANY_IN):
                    assert [await send(f"k{turn}") for turn in range(MANY)] == [503] * MANY
                assert (seen, ran) == (["opened"], ["order"])
                server.start()
                async with asyncio.timeout(30):
                    while await send("after") != 200:  # noqa: ASYNC110 - nothing announces the return
                        await asyncio.sleep(0.05)
            assert seen == ["opened", "closed"]

    storage = RedisStorage(server.url, "house", socket_timeout=SOCKET_TIMEOUT)
    under_asyncio(BackgroundOperationsManager(storage), program)
