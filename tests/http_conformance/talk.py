"""Clients of the conformance app: one that speaks as applications do, and one that sends any bytes whatever."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import h2.connection
import h2.events
import h11
import httpx
import trio

from http_conformance.sites import Site

MARKER = "idempotency-replayed"
DEADLINE = 30.0


class Caller:
    """Sends requests under one key and one effect, and knows what they led to.

    Attributes:
        effect: What the handlers' notes are filed under.
        key: The idempotency key, without quotes.
    """

    def __init__(self, site: Site, client: httpx.AsyncClient) -> None:
        self.site = site
        self.client = client
        self.effect = uuid4().hex
        self.key = str(uuid4())

    def another(self) -> Caller:
        """The same client with another key and effect."""
        return Caller(self.site, self.client)

    def at(self, site: Site) -> Caller:
        """The same key and effect at another site, by the same client."""
        caller = Caller(site, self.client)
        caller.effect, caller.key = self.effect, self.key
        return caller

    @property
    def entries(self) -> list[str]:
        """What the handlers noted."""
        return self.site.ledger.entries(self.effect)

    @property
    def runs(self) -> int:
        """How often a handler ran."""
        return self.entries.count("ran")

    def headers(self, key: str | None = None) -> dict[str, str]:
        """Key (as a quoted string) and effect."""
        return {"Idempotency-Key": f'"{self.key}"' if key is None else key, "X-Effect": self.effect}

    async def send(self, path: str, method: str = "POST", *, key: str | None = None, **options: Any) -> httpx.Response:
        """Send a request. `key`: another value of the header; empty: none."""
        headers = {**self.headers(key), **options.pop("headers", {})}
        if key == "":
            del headers["Idempotency-Key"]
        return await self.client.request(method, self.site.url + path, headers=headers, **options)

    async def noted(self, what: str = "ran", count: int = 1) -> None:
        """Wait until that was noted so often."""
        await eventually(lambda: self.entries.count(what) >= count, f"{what} is noted")

    def open_gate(self) -> None:
        """Let the handlers go on."""
        self.site.ledger.open_gate(self.effect)


@asynccontextmanager
async def calling(site: Site, *, http2: bool = False) -> AsyncIterator[Caller]:
    """A caller with a client of its own, which asks for no compression unless told."""
    limits = httpx.Limits(max_connections=200)
    headers = {"Accept-Encoding": "identity"}
    async with httpx.AsyncClient(
        http1=not http2, http2=http2, timeout=DEADLINE, limits=limits, headers=headers, trust_env=False
    ) as client:
        yield Caller(site, client)


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Poll until it is so; an assertion fails after the deadline."""
    with trio.move_on_after(DEADLINE):
        while not condition():  # noqa: ASYNC110 - it happens in another process
            await trio.sleep(0.01)
        return
    raise AssertionError(f"not within {DEADLINE} s: {what}")


async def until_answer(
    ask: Callable[[], Awaitable[httpx.Response]], wanted: Callable[[httpx.Response], bool]
) -> httpx.Response:
    """Ask again and again until the answer is such; gives it."""
    last = None
    with trio.move_on_after(DEADLINE):
        while True:
            last = await ask()
            if wanted(last):
                return last
            await trio.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE} s; the last answer: {last and (last.status_code, last.text)}")


def slug(response: httpx.Response) -> str:
    """The kind of problem that the response is."""
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["status"] == response.status_code
    assert document["title"]
    assert document["detail"]
    return str(document["type"]).removeprefix("urn:dotmac-tasks:problem:")


def replayed(response: httpx.Response) -> bool:
    """Whether it is marked as not made for this request."""
    assert response.headers.get(MARKER) in {None, "true"}
    return MARKER in response.headers


class RawConnection:
    """An HTTP/1.1 connection on which any bytes can be sent."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def send(self, head: str, fields: Iterable[tuple[str, str | bytes]], body: bytes = b"") -> None:
        """Send a request as it is: nothing is checked, nothing added."""
        lines = [head.encode(), b"Host: localhost"]
        lines += [name.encode() + b": " + (v.encode() if isinstance(v, str) else v) for name, v in fields]
        await self.stream.send_all(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    async def post(self, caller: Caller, path: str, *fields: tuple[str, str | bytes], body: bytes = b"") -> None:
        """Send a POST of a caller with these fields (the key only if it is among them)."""
        length = ("Content-Length", str(len(body)))
        await self.send(f"POST {path} HTTP/1.1", [("X-Effect", caller.effect), length, *fields], body)

    async def response(self) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The next response, in full."""
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
        reader.send(h11.EndOfMessage())
        start, body = None, b""
        with trio.fail_after(DEADLINE):
            while True:
                event = reader.next_event()
                if event is h11.NEED_DATA:
                    reader.receive_data(await self.stream.receive_some())
                elif isinstance(event, h11.Response):
                    start = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    assert start is not None
                    return start.status_code, list(start.headers.raw_items()), body

    async def answer(self) -> tuple[int, str]:
        """Status and kind of problem of the next response."""
        status, _, body = await self.response()
        return status, str(json.loads(body).get("type")).rpartition(":")[2]

    async def hang_up(self) -> None:
        """Close the connection, in the midst of whatever goes on."""
        await trio.aclose_forcefully(self.stream)


@asynccontextmanager
async def connected(site: Site) -> AsyncIterator[RawConnection]:
    """A raw connection to a site."""
    stream = await trio.open_tcp_stream("127.0.0.1", site.port)
    async with stream:
        yield RawConnection(stream)


async def ask_over_http2(caller: Caller, path: str) -> tuple[bytes, bool, list[str]]:
    """POST without a body by a client that takes pushes, as httpx does not.

    Returns:
        The response's body, whether it was marked as a replay, and the paths that were pushed.
    """
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    asked = {":method": "POST", ":scheme": "http", ":authority": "127.0.0.1", ":path": path}
    headers = {name.lower(): value for name, value in caller.headers().items()}
    stream_id = connection.get_next_available_stream_id()
    connection.send_headers(stream_id, [*asked.items(), *headers.items()], end_stream=True)
    body, marked, pushed = b"", False, list[str]()
    with trio.fail_after(DEADLINE):
        async with await trio.open_tcp_stream("127.0.0.1", caller.site.port) as stream:
            while True:
                await stream.send_all(connection.data_to_send())
                for event in connection.receive_data(await stream.receive_some()):
                    match event:
                        case h2.events.PushedStreamReceived():
                            pushed.append(_decoded(event.headers)[":path"])
                        case h2.events.ResponseReceived(stream_id=of) if of == stream_id:
                            marked = MARKER in _decoded(event.headers)
                        case h2.events.DataReceived(stream_id=of) if of == stream_id:
                            body += event.data
                        case h2.events.StreamEnded(stream_id=of) if of == stream_id:
                            return body, marked, pushed
                        case _:
                            pass


def _decoded(headers: Iterable[tuple[bytes, bytes]] | None) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers or ()}
