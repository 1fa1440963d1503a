"""A service process with more connections than descriptors, and with request bodies that never end."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from dotmac.tasks.service.connections import Place, Places, admitted, state_with
from service.service_process import PATIENCE, ServiceProcess, running, serving
from support.servers import standalone

TOKEN = "the-token-of-otto-the-operator"  # noqa: S105 - of a test
FILES = 300
STALLED_HEAD = b"POST /lo"
STALLED_BODY = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nt"
STREAM = (
    f"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    (folder / "tokens").write_text(f"operate otto {TOKEN}\n")
    return folder


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with standalone() as server:
        yield server.url


@pytest.fixture(scope="module")
def process(folder: Path, redis_url: str) -> Iterator[ServiceProcess]:
    with serving(folder, redis_url, "--token-file", "tokens", files=FILES) as process:
        yield process


@pytest.fixture
def hurried(folder: Path, redis_url: str) -> Iterator[ServiceProcess]:
    command = ("serve", "hurried_app:manager", "--bind", "127.0.0.1:0", "--token-file", "tokens")
    with running(folder, redis_url, *command) as process:
        yield process


def connect(process: ServiceProcess, sent: bytes) -> socket.socket:
    url = httpx.URL(process.url)
    assert url.port is not None
    connection = socket.create_connection((url.host, url.port), timeout=PATIENCE)
    connection.sendall(sent)
    return connection


def received(connection: socket.socket, wanted: bytes) -> bytes:
    """What comes until `wanted` is among it, or the server closes."""
    data = b""
    while wanted not in data and (part := connection.recv(65536)):
        data += part
    return data


def is_open(connection: socket.socket) -> bool:
    while select.select([connection], [], [], 0)[0]:
        if not connection.recv(65536):
            return False
    return True


@pytest.mark.redis
@pytest.mark.parametrize("sent", [b"", STALLED_HEAD, STALLED_BODY], ids=["silent", "head", "body"])
def test_probes_and_streams_are_served_beside_more_stalled_connections_than_descriptors(
    process: ServiceProcess, sent: bytes
) -> None:
    with ExitStack() as stack:
        stream = stack.enter_context(connect(process, STREAM))
        assert b"200" in received(stream, b"retry: ")
        for _ in range(FILES + 20):
            stack.enter_context(connect(process, sent))
        for _ in range(3):
            assert httpx.get(f"{process.url}/health/live", timeout=PATIENCE).status_code == 200
        assert is_open(stream), "the stream of a known caller was closed"
    assert "accept returned" not in process.log
    assert "Traceback" not in process.log


@pytest.mark.redis
def test_more_event_streams_than_descriptors_leave_room_for_a_probe(process: ServiceProcess) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(connect(process, STREAM)) for _ in range(FILES + 20)]
        assert b"200" in received(streams[-1], b"retry: ")
        assert httpx.get(f"{process.url}/health/live", timeout=PATIENCE).status_code == 200
    assert "Traceback" not in process.log


@pytest.mark.redis
def test_a_body_that_never_ends_is_answered(hurried: ServiceProcess) -> None:
    made = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    made.initiate_connection()
    made.send_headers(
        1, [(":method", "POST"), (":path", "/v1/sagas"), (":scheme", "http"), (":authority", "localhost")]
    )
    made.send_data(1, b"{")
    with connect(hurried, STALLED_BODY) as slow, connect(hurried, made.data_to_send()) as unknown:
        status = b""
        while not status:
            data = unknown.recv(65536)
            assert data, "closed without an answer"
            for event in made.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    status = dict(event.headers or ())[b":status"]
        assert status == b"401"
        assert received(slow, b"\r\n").startswith(b"HTTP/1.1 408")


def test_of_equal_connections_the_one_that_was_sent_nothing_for_longest_closes() -> None:
    closed: list[str] = []
    places = Places(3)
    with ExitStack() as stack:

        def connection(name: str) -> Place:
            return stack.enter_context(places.taken(3, lambda: closed.append(name)))

        first, second, third = map(connection, ("first", "second", "third"))
        stack.enter_context(admitted({"state": state_with({}, second)}))
        places.used(first)
        connection("fourth")
        connection("fifth")
        assert closed == ["third", "first"]
        assert (third.closed, second.closed) == (True, False)
        for place in (third, second):
            places.used(place)  # a place that is given up stays so
        stack.enter_context(admitted({"state": state_with({}, connection("sixth"))}))
        assert closed == ["third", "first", "fourth"]
