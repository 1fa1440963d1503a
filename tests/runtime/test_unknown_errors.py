"""What the clients in use raise when nobody knows whether the request got through, and when everybody does."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import aiohttp
import anyio
import httpx
import pytest
import redis
import requests
import urllib3
from redis.backoff import NoBackoff
from redis.retry import Retry

from dotmac.tasks.runtime.unknown_errors import leaves_unknown

SECONDS = 0.2
SILENT, CLOSES, BREAKS_OFF, FAILS = "silent", "closes", "breaks off", "fails"
_ANSWERS = {
    CLOSES: b"",
    BREAKS_OFF: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.",
    FAILS: b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


@contextmanager
def server(how: str) -> Iterator[int]:
    """A server that takes a request and answers it in its way; gives its port."""
    over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection: socket.socket = self.request
            connection.recv(65_536)
            if how == SILENT:
                over.wait(30)
            else:
                connection.sendall(_ANSWERS[how])

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield listening.server_address[1]
        finally:
            over.set()
            listening.shutdown()
            thread.join()


def by_httpx(port: int) -> None:
    httpx.post(f"http://127.0.0.1:{port}", timeout=SECONDS, trust_env=False).raise_for_status()


def by_requests(port: int) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.post(f"http://127.0.0.1:{port}", timeout=SECONDS).raise_for_status()


def by_urllib3(port: int) -> None:
    with urllib3.PoolManager() as pool:
        pool.request("POST", f"http://127.0.0.1:{port}", timeout=SECONDS, retries=False)


def by_urllib3_with_retries(port: int) -> None:
    with urllib3.PoolManager() as pool:
        pool.request("GET", f"http://127.0.0.1:{port}", timeout=SECONDS, retries=1)


def by_urllib(port: int) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}", b"x", timeout=SECONDS) as response:
            response.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise


def by_aiohttp(port: int) -> None:
    async def post() -> None:
        timeout = aiohttp.ClientTimeout(SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"http://127.0.0.1:{port}") as response,
        ):
            await response.read()
            response.raise_for_status()

    asyncio.run(post())


def by_redis(port: int) -> None:
    with redis.Redis(port=port, socket_timeout=SECONDS, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()


def by_anyio(port: int) -> None:
    async def ask() -> None:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"x")
            with anyio.fail_after(SECONDS):
                await stream.receive()

    anyio.run(ask, backend="trio")


def by_asyncio(port: int) -> None:
    async def ask() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        try:
            async with asyncio.timeout(SECONDS):
                await reader.readexactly(1000)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    asyncio.run(ask())


Client = Callable[[int], None]
HTTP: list[Client] = [by_httpx, by_requests, by_urllib3, by_urllib, by_aiohttp]
OTHERS: list[Client] = [by_redis, by_anyio, by_asyncio, by_urllib3_with_retries]


def raised(client: Client, how: str) -> Exception:
    with server(how) as port, pytest.raises(Exception) as caught:  # noqa: PT011 - which it is, is the question
        client(port)
    return caught.value


@pytest.mark.parametrize("how", [SILENT, CLOSES])
@pytest.mark.parametrize("client", HTTP + OTHERS)
def test_a_time_out_or_a_lost_connection_leaves_open_if_it_happened(client: Client, how: str) -> None:
    error = raised(client, how)
    assert leaves_unknown(error, None)
    assert not leaves_unknown(error, (ValueError,))


@pytest.mark.parametrize("client", HTTP)
def test_an_answer_that_breaks_off_leaves_it_open_too(client: Client) -> None:
    assert leaves_unknown(raised(client, BREAKS_OFF), None)


@pytest.mark.parametrize("client", [by_httpx, by_requests, by_urllib, by_aiohttp])
def test_an_answer_that_says_no_is_an_answer(client: Client) -> None:
    assert not leaves_unknown(raised(client, FAILS), None)
