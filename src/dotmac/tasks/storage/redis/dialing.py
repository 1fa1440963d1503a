"""Finding the server and opening a connection to it: one dialer per way of knowing the address.

A dialer is asked anew for every connection, so that a failover needs no other mechanism than reconnecting: with
sentinels, each new connection goes to the master that they name at that moment, and only to a server that says
itself that it is one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from dotmac.tasks.errors import EnvironmentFault, StorageMisconfigured, StorageUnavailable

from .address import Address
from .host import Host
from .options import RedisOptions
from .wire import CONNECT_FAULTS, Sink, Wire, ask_once, connect_error, connection_factory, open_wire, sentinel_factory


class Conversation(Sink, Protocol):
    """What a connection is opened for."""

    def opened(self, wire: Wire) -> None:
        """Takes the connection, ready for commands."""


C = TypeVar("C", bound=Conversation)


class Dialer(Protocol):
    """A way to a server."""

    async def dial(self, make: Callable[[Address], C]) -> C:
        """Opens a connection and the conversation on it, made by `make` for the address that was found.

        Raises:
            StorageUnavailable: No server could be reached. Nothing is left open; trying later may help.
            StorageMisconfigured: The server was reached and does not let us in.
        """


async def _connect(
    host: Host, options: RedisOptions, address: Address, make: Callable[[Address], C], *, only_master: bool = False
) -> C:
    conversation = make(address)
    wire = host.wire(conversation)
    try:
        await host.run(
            functools.partial(open_wire, connection_factory(options, address), wire, only_master=only_master)
        )
    except CONNECT_FAULTS as error:
        wire.abort()
        # "from None": redis-py's errors may quote what we sent, and what we sent is the password.
        raise connect_error(error, address, options) from None
    except BaseException:  # cancelled, and perhaps connected all the same
        wire.abort()
        raise
    conversation.opened(wire)
    return conversation


class NodeDialer:
    """Goes to one known address."""

    def __init__(self, host: Host, options: RedisOptions, address: Address) -> None:
        self._host = host
        self._options = options
        self._address = address

    async def dial(self, make: Callable[[Address], C]) -> C:
        """See `Dialer.dial`."""
        return await _connect(self._host, self._options, self._address, make)


class AnyNodeDialer:
    """Goes to any of the nodes that are known at that moment, to another one each time."""

    def __init__(self, host: Host, options: RedisOptions, known: Callable[[], Sequence[Address]]) -> None:
        self._host = host
        self._options = options
        self._known = known
        self._turn = 0

    async def dial(self, make: Callable[[Address], C]) -> C:
        """See `Dialer.dial`."""
        known = self._known()
        address = known[self._turn % len(known)]
        self._turn += 1
        return await _connect(self._host, self._options, address, make)


class SentinelDialer:
    """Asks the sentinels for the master, then goes there."""

    def __init__(self, host: Host, options: RedisOptions) -> None:
        self._host = host
        self._options = options
        self._sentinels = list(options.addresses)

    async def dial(self, make: Callable[[Address], C]) -> C:
        """See `Dialer.dial`."""
        return await _connect(self._host, self._options, await self._find_master(), make, only_master=True)

    async def _find_master(self) -> Address:
        failures: list[EnvironmentFault] = []
        for sentinel in list(self._sentinels):
            try:
                master = await self._ask(sentinel)
            except EnvironmentFault as failure:
                failures.append(failure)
                continue
            # Who answered is asked first next time: one that is gone costs its time-out once, not each time.
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return master
        told = "; ".join(str(failure) for failure in failures)
        if all(isinstance(failure, StorageMisconfigured) for failure in failures):
            raise StorageMisconfigured(f"no sentinel tells the master of {self._options.service!r}: {told}")
        raise StorageUnavailable(f"no sentinel tells the master of {self._options.service!r}: {told}")

    async def _ask(self, sentinel: Address) -> Address:
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._options.service or "")
        make = sentinel_factory(self._options, sentinel)
        try:
            answer = await self._host.run(functools.partial(ask_once, make, *question))
        except CONNECT_FAULTS as error:
            if "unknown command" in str(error):
                raise StorageMisconfigured(
                    f"{sentinel} is no sentinel ({error}): redis_url names the sentinels, mostly at port 26379"
                ) from None
            raise connect_error(error, sentinel, self._options) from None
        if answer is None:
            raise StorageMisconfigured(f"sentinel {sentinel} knows no master named {self._options.service!r}")
        host, port = answer
        return Address(host.decode(), int(port))
