"""How a server is reached: by names with several addresses, and through greetings that it refuses for a while."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from dotmac.tasks.errors import StorageUnavailable
from dotmac.tasks.storage.redis.gateway import RedisClient
from dotmac.tasks.storage.redis.script import Script
from redis_wire.wire_helpers import client_of, eventually
from support.servers import DEBIAN_REDIS, Server, needs_debian_redis, standalone

pytestmark = pytest.mark.redis

BINARIES = [
    None,
    pytest.param(DEBIAN_REDIS, marks=needs_debian_redis),
]


@contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """A host that is gone: its queue of new connections is full, so the kernel answers no more of them."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((address, port))
        yield


@pytest.mark.parametrize("seconds", [0.5, 5.0])
async def test_a_dead_address_of_a_name_does_not_hide_the_next(
    shared_server: Server, host: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, resolve = shared_server.port, socket.getaddrinfo

    def resolve_name(name: Any, *arguments: Any, **more: Any) -> Any:
        if name != "two.test":
            return resolve(name, *arguments, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve_name)
    with silent("127.0.0.2", port):
        async with client_of(f"redis://two.test:{port}", loop_host=host, socket_timeout=seconds) as client:
            assert await client.execute("PING", timeout=30) == b"PONG"


@pytest.mark.parametrize("binary", BINARIES)
async def test_a_server_that_is_busy_when_it_is_called_is_waited_for(binary: Path | None) -> None:
    with standalone("busy-reply-threshold 10", binary=binary) as server:
        async with client_of(server.url) as first, trio.open_nursery() as nursery:
            nursery.start_soon(_run_until_killed, first)
            await eventually(lambda: _is_busy(server))
            async with client_of(server.url, socket_timeout=30) as client, trio.open_nursery() as callers:
                callers.start_soon(client.execute, "SET", "k", 1)
                await eventually(lambda: client.status()[0].trouble or client.status()[0].connected)
                server.cli("SCRIPT", "KILL")


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
