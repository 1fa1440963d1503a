"""How a server is reached: through greetings that it refuses for a while."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from dotmac.tasks.errors import StorageUnavailable
from dotmac.tasks.storage.redis.gateway import RedisClient
from dotmac.tasks.storage.redis.script import Script
from redis_wire.wire_helpers import client_of, eventually
from support.servers import DEBIAN_REDIS, Server, standalone

pytestmark = pytest.mark.redis

BINARIES = [
    None,
    pytest.param(DEBIAN_REDIS, marks=pytest.mark.skipif(not DEBIAN_REDIS.exists(), reason="no redis-server")),
]


@pytest.mark.parametrize("binary", BINARIES)
async def test_a_server_that_is_busy_when_it_is_called_is_waited_for(binary: Path | None) -> None:
    with standalone("busy-reply-threshold 10", binary=binary) as server:
        async with client_of(server.url) as first, trio.open_nursery() as nursery:
            nursery.start_soon(_run_until_killed, first)
            await eventually(lambda: _is_busy(server))
            async with client_of(server.url, socket_timeout=30) as client:
                nursery.start_soon(client.execute, "SET", "k", 1)
                await eventually(lambda: client.status()[0].trouble or client.status()[0].connected)
                server.cli("SCRIPT", "KILL")
                assert await client.execute("SET", "k", 2) == b"OK"


async def _run_until_killed(client: RedisClient) -> None:
    with pytest.raises(Exception, match="killed"):
        await client.run(Script("endless", "while true do end"), timeout=60)


def _is_busy(server: Server) -> bool:
    try:
        server.cli("PING")
    except Exception as error:
        return "BUSY" in str(error)
    return False


@pytest.mark.parametrize("binary", BINARIES)
async def test_a_node_that_has_too_many_clients_is_waited_for(binary: Path | None) -> None:
    with standalone("cluster-enabled yes", "maxclients 3", binary=binary) as node, ExitStack() as stack:
        node.cli("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        others = [stack.enter_context(socket.create_connection((node.host, node.port))) for _ in range(3)]
        async with client_of(node.url, cluster=True, socket_timeout=30) as client:
            with pytest.raises(StorageUnavailable, match="max number of clients"):
                await client.execute("GET", "k", key="k", timeout=1)
            for other in others:
                other.close()
            assert await client.execute("GET", "k", key="k") is None
