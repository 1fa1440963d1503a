"""A TCP proxy that breaks connections on purpose, one request at a time.

It exists because the hard question of every remote call is "was it done?", and only a wire that loses the request,
or only its reply, makes a client answer it. The proxy knows no protocol: a *request* is what one read from the
client yields, a *reply* what the next read from upstream yields. Clients that pipeline have several commands in one.
"""

from __future__ import annotations

import contextlib
import enum
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType

CHUNK_BYTES = 65_536


class Fault(enum.Enum):
    """What happens to one request."""

    NONE = "none"
    DROP_REQUEST = "drop request"
    """The connection ends before upstream sees the request."""
    LOSE_REPLY = "lose reply"
    """Upstream carries the request out and answers; the connection ends before the client sees a byte of it."""
    CUT_REPLY = "cut reply"
    """The connection ends after the first half of the reply (of one byte: after none)."""
    DELAY = "delay"
    """The request waits for `FaultProxy.delay` seconds."""
    STALL_REQUEST = "stall request"
    """Upstream never sees the request, nothing more passes, and the connection stays open."""
    STALL_REPLY = "stall reply"
    """Upstream carries the request out; nothing more reaches the client, and the connection stays open."""


@dataclass
class _Connection:
    """Both ends of one proxied connection, and the fault that waits for its next reply."""

    client: trio.SocketStream
    upstream: trio.SocketStream
    scope: trio.CancelScope
    reply_fault: Fault = Fault.NONE


class FaultProxy:
    """A proxy on a free loopback port: ``async with FaultProxy(("127.0.0.1", 6379)) as proxy: proxy.url``.

    The fault of each request is the first scripted one, or else a drawn one, or else none. `history` has what every
    request got, in order, so a random run can be written down (`describe`) and run again (`script`).

    Attributes:
        upstream: Where connections go from now on: host and port, or the path of a unix socket. May be changed.
        delay: Seconds that `Fault.DELAY` takes.
        bytes_per_second: How fast replies pass on each connection; None: at once. May be changed.
        accepting: False: new connections are closed at once. May be changed.
        history: The faults so far.
    """

    def __init__(self, upstream: tuple[str, int] | str | Path, *, delay: float = 0.05) -> None:
        self.upstream = upstream
        self.delay = delay
        self.accepting = True
        self.bytes_per_second: float | None = None
        self.history: list[Fault] = []
        self.host = "127.0.0.1"
        self._script: deque[Fault] = deque()
        self._random = random.Random()
        self._seed: int | None = None
        self._odds: dict[Fault, float] = {}
        self._connections: list[_Connection] = []
        self._nursery_manager = trio.open_nursery()

    async def __aenter__(self) -> Self:
        self._nursery = await self._nursery_manager.__aenter__()
        listeners = await trio.open_tcp_listeners(0, host=self.host)
        self.port: int = listeners[0].socket.getsockname()[1]
        self._nursery.start_soon(trio.serve_listeners, self._serve, listeners)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._nursery.cancel_scope.cancel()
        await self._nursery_manager.__aexit__(None, None, None)  # the body's own error goes out as it is, in no group

    @property
    def url(self) -> str:
        """The address for Redis clients."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._connections)

    def script(self, *faults: Fault) -> None:
        """Give these faults to the next requests, one each, after those scripted before."""
        self._script.extend(faults)

    def randomize(self, seed: int, odds: Mapping[Fault, float]) -> None:
        """Draw the faults of requests that have no scripted one; `odds`: fault to probability (the rest: none)."""
        self._seed, self._odds = seed, dict(odds)
        self._random = random.Random(seed)

    def calm(self) -> None:
        """No more faults: neither scripted nor drawn."""
        self._script.clear()
        self._odds = {}

    def drop_all(self) -> None:
        """End every open connection now."""
        for connection in self._connections:
            connection.scope.cancel()

    def describe(self) -> str:
        """The seed and what every request got: enough to run the same schedule again."""
        names = ", ".join(f"Fault.{fault.name}" for fault in self.history)
        return f"seed={self._seed} script({names})"

    def _next_fault(self) -> Fault:
        fault = self._script.popleft() if self._script else self._draw()
        self.history.append(fault)
        return fault

    def _draw(self) -> Fault:
        if not self._odds:
            return Fault.NONE
        ordinary = max(0.0, 1.0 - sum(self._odds.values()))
        faults = [*self._odds, Fault.NONE]
        return self._random.choices(faults, weights=[*self._odds.values(), ordinary])[0]

    async def _serve(self, client: trio.SocketStream) -> None:
        async with client:
            if not self.accepting:
                return
            try:
                upstream = await self._connect()
            except OSError:
                return  # nobody there: the client sees its connection end, as it would at a load balancer
            async with upstream, trio.open_nursery() as nursery:
                connection = _Connection(client, upstream, nursery.cancel_scope)
                self._connections.append(connection)
                nursery.start_soon(self._carry, self._requests, connection)
                nursery.start_soon(self._carry, self._replies, connection)
                try:
                    await trio.sleep_forever()
                finally:
                    self._connections.remove(connection)

    async def _connect(self) -> trio.SocketStream:
        if isinstance(self.upstream, tuple):
            return await trio.open_tcp_stream(*self.upstream)
        return await trio.open_unix_socket(str(self.upstream))

    async def _carry(self, direction: Callable[[_Connection], Awaitable[None]], connection: _Connection) -> None:
        """Run one direction; when it ends, or either end breaks, so does the connection."""
        with contextlib.suppress(trio.BrokenResourceError):  # a peer that resets is a peer that is gone
            await direction(connection)
        connection.scope.cancel()

    async def _requests(self, connection: _Connection) -> None:
        while request := await connection.client.receive_some(CHUNK_BYTES):
            fault = self._next_fault()
            if fault is Fault.DROP_REQUEST:
                return
            if fault is Fault.STALL_REQUEST:
                while await connection.client.receive_some(CHUNK_BYTES):
                    pass  # read on, to see the client leave
                return
            if fault is Fault.DELAY:
                await trio.sleep(self.delay)
            elif fault is not Fault.NONE:
                connection.reply_fault = fault
            await connection.upstream.send_all(request)

    async def _replies(self, connection: _Connection) -> None:
        while reply := await connection.upstream.receive_some(CHUNK_BYTES):
            fault = connection.reply_fault
            if fault is Fault.LOSE_REPLY:
                return
            if fault is Fault.CUT_REPLY:
                await connection.client.send_all(reply[: len(reply) // 2])
                return
            if self.bytes_per_second is not None:
                await trio.sleep(len(reply) / self.bytes_per_second)
            if fault is not Fault.STALL_REPLY:
                await connection.client.send_all(reply)
