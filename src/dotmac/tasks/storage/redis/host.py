"""What runs asyncio for the trio side: the one seam between the two.

Everything that decides (queues, matching of replies, deadlines) runs in the trio thread. A host only runs asyncio
coroutines (the handshake) and makes wires (bytes out, bytes in), so that the two kinds of host stay small and equal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from .wire import Sink, WireProtocol

T = TypeVar("T")


class HostWire(WireProtocol):
    """A wire as its host made it: the asyncio protocol and the trio side's `Wire` in one."""

    def write(self, data: bytes) -> None:
        """See `Wire.write`."""
        raise NotImplementedError

    def abort(self) -> None:
        """See `Wire.abort`."""
        raise NotImplementedError


class Host(Protocol):
    """A running asyncio loop."""

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Runs an asyncio coroutine function from trio. Cancelling the call cancels it and waits for its end."""

    def wire(self, sink: Sink) -> HostWire:
        """Makes a wire that is not connected yet; the host closes it when it ends itself."""


async def close_wires(wires: set[HostWire]) -> None:
    """Runs in asyncio: aborts what is open and waits until the transports are gone."""
    for wire in list(wires):
        if wire.transport is not None:
            wire.transport.abort()
            await wire.closed.wait()
