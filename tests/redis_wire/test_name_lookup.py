"""A name service that is away does not keep a client from a server that is there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dotmac.tasks.storage.redis.gateway import open_client
from dotmac.tasks.storage.redis.options import RedisOptions
from support.servers import Server

NAMED = "localhost"
Lookup = Callable[..., Any]


def hang(released: threading.Event, *_arguments: Any) -> Any:
    released.wait()
    raise socket.gaierror("the name service was away")


def fail(_released: threading.Event, *_arguments: Any) -> Any:
    raise socket.gaierror("no such name")


@pytest.mark.parametrize("outage", [hang, fail])
async def test_the_last_known_address_is_tried(
    server: Server, host: str, outage: Lookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, look_up = threading.Event(), socket.getaddrinfo

    def answer(name: Any, *arguments: Any, **options: Any) -> Any:
        if name == NAMED and not options.get("flags"):
            return outage(released)
        return look_up(name, *arguments, **options)

    url = server.url.replace("127.0.0.1", NAMED)
    async with open_client(RedisOptions.from_url(url, loop_host=host, socket_timeout=2)) as client:
        assert await client.execute("PING") == b"PONG"
        monkeypatch.setattr(socket, "getaddrinfo", answer)
        try:
            for _ in range(3):
                server.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                assert await client.execute("PING", timeout=30, repeatable=True) == b"PONG"
        finally:
            released.set()
