"""With sentinels, each new connection goes to the master of that moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from dotmac.tasks.errors import StorageMisconfigured, StorageUnavailable
from redis_wire.test_link_faults import Storm
from redis_wire.wire_helpers import client_of, eventually
from support.servers import Sentinels, Server, sentinel

pytestmark = pytest.mark.redis


@pytest.fixture
def watched() -> Iterator[Sentinels]:
    with sentinel() as servers:
        yield servers


def url_of(servers: Sentinels) -> str:
    hosts = ",".join(f"{address}:{port}" for address, port in servers.addresses)
    return f"redis+sentinel://127.0.0.1:1,{hosts}/{servers.name}/0"  # the first one is not there


async def test_follows_an_ordered_failover_under_load(watched: Sentinels, host: str) -> None:
    async with (
        client_of(url_of(watched), loop_host=host, socket_timeout=60) as client,
        client.watch("news") as watch,
        trio.open_nursery() as nursery,
    ):
        storm = Storm(client)
        for name in range(10):
            nursery.start_soon(storm.caller, name)
        await storm.more(100)
        second = await trio.to_thread.run_sync(watched.failover)
        await eventually(lambda: client.status()[0].connections > 1, 60)  # the old master is told a little later
        await storm.more(500)
        storm.over = True
        with trio.fail_after(60):  # until it is told, the old master takes writes, and forgets them
            while second.cli("GET", f"after-{host}") != "1":
                await client.execute("SET", f"after-{host}", 1, repeatable=True)
        with trio.fail_after(60):
            await watch.wait()
    await trio.to_thread.run_sync(watched.wait_ready)


async def test_follows_the_death_of_the_master(host: str) -> None:
    with sentinel() as servers:
        async with client_of(url_of(servers), loop_host=host, socket_timeout=60) as client:
            await client.execute("PING")
            first = servers.primary
            first.kill()
            assert await client.execute("SET", "k", 1, repeatable=True) == b"OK"
            assert servers.wait_for_primary(other_than=first).cli("GET", "k") == "1"


async def test_unknown_service_is_told(watched: Sentinels) -> None:
    hosts = ",".join(f"{address}:{port}" for address, port in watched.addresses)
    async with client_of(f"redis+sentinel://{hosts}/nobody", socket_timeout=30) as client:
        with trio.fail_after(20), pytest.raises(StorageMisconfigured, match="nobody"):
            await client.execute("PING")


async def test_absent_sentinels_are_told() -> None:
    async with client_of("redis+sentinel://127.0.0.1:1/main", socket_timeout=1) as client:
        with pytest.raises(StorageUnavailable, match="no sentinel tells the master of 'main'"):
            await client.execute("PING")


async def test_a_server_in_the_place_of_a_sentinel_is_told(shared_server: Server) -> None:
    async with client_of(shared_server.url.replace("redis:", "redis+sentinel:").replace("/0", "/main/0")) as client:
        with pytest.raises(StorageMisconfigured, match="is no sentinel"):
            await client.execute("PING")
