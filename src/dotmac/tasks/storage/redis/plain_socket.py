"""A connected socket without encryption, read and written by trio itself.

asyncio makes the connection, since redis-py does the handshake there. From then on each read and each write through
its transport would cost two turns of a scheduler under trio-asyncio, and a change of thread with a helper thread.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import trio
from trio.lowlevel import enable_ki_protection

from .wire import Sink

_READ_SIZE = 262_144
_PAUSE_ABOVE, _RESUME_BELOW = 65_536, 16_384  # bytes that wait to be written, as asyncio has it


class PlainSocket:
    """One connection, in the trio thread; the descriptor is its own.

    Args:
        source: The socket, which does not block.
        sink: Told of what comes, and when to stop and go on writing.
        failed: Called when the connection is found to be gone. `end` is to follow.

    Attributes:
        failure: What it failed with.
    """

    def __init__(self, source: socket.socket, sink: Sink, failed: Callable[[], None]) -> None:
        self._source = source
        self._sink = sink
        self._failed = failed
        self._life = trio.CancelScope(shield=True)  # for as long as there is a connection, whoever is cancelled
        self._backlog = bytearray()
        self._more = trio.Event()
        self._paused = False
        self._over = False
        self.failure: Exception | None = None

    @enable_ki_protection
    async def serve(self) -> None:
        """Read, and write what could not be written at once, until `end`."""
        with self._source, self._life:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_writing)
                await self._keep_reading()

    def write(self, data: bytes) -> None:
        """Send what can be sent now, and keep the rest for later."""
        if self._over:
            return
        if self._backlog:
            self._backlog += data
        else:
            sent = self._send(data)
            if sent == len(data):
                return
            self._backlog += memoryview(data)[sent:]
            self._more.set()
        if not self._paused and len(self._backlog) > _PAUSE_ABOVE:
            self._paused = True
            self._sink.paused()

    def read(self) -> bool:
        """Read what has come already, if anything has; whether there is still a connection."""
        if self._over:
            return False
        try:
            data = self._source.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as error:
            self._fail(error)
            return False
        if not data:
            self._fail(None)
            return False
        self._sink.received(data)
        return True

    def end(self) -> None:
        """The connection is gone, or given up."""
        self._over = True
        self._life.cancel()

    async def _keep_reading(self) -> None:
        await trio.lowlevel.wait_readable(self._source)
        while self.read():
            await trio.lowlevel.wait_readable(self._source)

    @enable_ki_protection
    async def _keep_writing(self) -> None:
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._backlog and not self._over:
                await trio.lowlevel.wait_writable(self._source)
                del self._backlog[: self._send(self._backlog)]
                if self._paused and len(self._backlog) < _RESUME_BELOW:
                    self._paused = False
                    self._sink.resumed()

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._source.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._fail(error)
            return 0

    def _fail(self, error: OSError | None) -> None:
        """It is gone, with an error or closed by the server."""
        self._over = True
        self.failure = self.failure or error
        self._failed()
