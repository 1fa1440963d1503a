"""What a client does to its connection: refused bodies, nonsense, hanging up. The service goes on for the others."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h2.config
import h2.connection
import httpx
import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage
from dotmac.tasks.service.access import Access
from dotmac.tasks.service.app import create_app
from dotmac.tasks.service.exits import DRAINED
from dotmac.tasks.service.process import Front, run_process
from service.house import PATIENCE, guarded_access

JSON = {"content-type": "application/json"}


@asynccontextmanager
async def serving(caplog: pytest.LogCaptureFixture, access: Access | None = None) -> AsyncIterator[str]:
    """The URL of a service that listens, and that a signal ends in order afterwards."""
    caplog.set_level("INFO")
    manager = BackgroundOperationsManager(storage=MemoryStorage())
    front = Front(create_app(manager, access=access), ["127.0.0.1:0"])
    codes: list[int] = []

    async def run() -> None:
        codes.append(await run_process(manager, front))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            while not (urls := [text for text in caplog.messages if text.startswith("listening on ")]):  # noqa: ASYNC110
                await trio.sleep(0.01)
            yield urls[0].removeprefix("listening on ")
            os.kill(os.getpid(), signal.SIGTERM)
    assert codes == [DRAINED]


async def talk(url: str, *parts: bytes) -> None:
    """Send this over a connection of its own, and read until it is over or nothing comes any more."""
    host, port = httpx.URL(url).host, httpx.URL(url).port
    assert port is not None
    async with await trio.open_tcp_stream(host, port) as stream:
        for part in parts:
            try:
                await stream.send_all(part)
                with trio.move_on_after(0.3):
                    while await stream.receive_some():
                        pass
            except trio.BrokenResourceError:
                return


async def answers(url: str) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{url}/health/live")).status_code == 200


@pytest.mark.parametrize("http1", [True, False], ids=["http1", "http2"])
@pytest.mark.parametrize(
    ("headers", "method", "path", "status"),
    [
        ({}, "POST", "/v1/sagas", 401),
        ({"authorization": "Bearer the-token-of-vera-the-viewer"}, "POST", "/v1/sagas", 403),
        ({"authorization": "Bearer the-token-of-otto-the-operator"}, "PUT", "/v1/sagas", 405),
        ({"authorization": "Bearer the-token-of-otto-the-operator"}, "POST", "/v1/sagas", 400),
        (
            {"authorization": "Bearer the-token-of-otto-the-operator", "idempotency-key": "a,b"},
            "POST",
            "/v1/sagas",
            400,
        ),
    ],
)
async def test_who_is_refused_with_a_body_goes_on_with_the_connection(
    headers: dict[str, str], method: str, path: str, status: int, http1: bool, caplog: pytest.LogCaptureFixture
) -> None:
    body = bytes(3_000_000 if not http1 else 300_000)  # beyond that, a new connection is cheaper on HTTP/1
    async with serving(caplog, guarded_access()) as url, httpx.AsyncClient(http1=http1, http2=not http1) as client:
        for _ in range(3):
            answer = await client.request(method, url + path, content=body, headers={**JSON, **headers})
            assert answer.status_code == status
        await answers(url)
    assert "the HTTP server failed" not in caplog.text


def http2(*headers: tuple[bytes, bytes], data: bytes | None = None) -> list[bytes]:
    """A request as bytes, checked by nobody, and data that comes after it."""
    config = h2.config.H2Configuration(
        header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    made = h2.connection.H2Connection(config)
    made.initiate_connection()
    made.send_headers(1, headers, end_stream=data is None)
    parts = [made.data_to_send()]
    if data is not None:
        made.send_data(1, data)
        parts.append(made.data_to_send())
    return parts


PLACE = ((b":path", b"/v1/sagas"), (b":scheme", b"http"), (b":authority", b"localhost"))


@pytest.mark.parametrize(
    "parts",
    [
        http2((b":method", b"G\xff"), *PLACE),
        http2((b":method", b"CONNECT"), (b":authority", b"localhost"), data=b"on"),
        http2(
            *[(b":method", b"CONNECT"), (b":protocol", b"websocket"), *PLACE, (b"sec-websocket-version", b"13")],
            data=b"on",
        ),
    ],
    ids=["method", "connect", "websocket"],
)
async def test_a_connection_in_which_the_server_fails_ends_alone(
    parts: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(caplog) as url:
        await talk(url, *parts)
        await answers(url)
    assert "a connection was given up: the HTTP server failed in it" in caplog.messages


@pytest.mark.parametrize("path", ["/v1/sagas", "/v1/sagas/nope/cancel", "/login"])
async def test_a_client_that_hangs_up_in_the_midst_of_its_request_is_no_error(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    async with serving(caplog) as url:
        await talk(url, head.encode() + b"{")
        await answers(url)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
