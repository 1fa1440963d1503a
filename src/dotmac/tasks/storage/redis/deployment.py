"""The running gateway: the asyncio loop, the links, and the tasks that serve them, as one thing that starts and ends.

It is built before anything runs, so that the first call can be queued at once, and it is shielded from the
cancellation of whoever opened it, so that a cancelled body can still clean up through it. It ends when it is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from .cluster import Cluster
from .dialing import AnyNodeDialer, NodeDialer, SentinelDialer
from .host import Host, HostWire
from .hosts import open_host
from .link import Link
from .options import RedisOptions
from .pubsub import Subscriptions
from .topology import SingleNode, Topology
from .wire import Sink

T = TypeVar("T")


class LateHost:
    """A host that can be named before it is open. Only tasks of the deployment use it, and they start after it."""

    def __init__(self) -> None:
        self.opened: Host | None = None

    def _get(self) -> Host:
        if self.opened is None:
            raise RuntimeError("the asyncio loop is not open")
        return self.opened

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """See `Host.run`."""
        return await self._get().run(function)

    def wire(self, sink: Sink) -> HostWire:
        """See `Host.wire`."""
        return self._get().wire(sink)


class Deployment:
    """Everything that runs for one client.

    Attributes:
        topology: Where commands go.
        subscriptions: Where messages come from.
        failure: What ended it, if it was not `close`.
    """

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._host = LateHost()
        self._scope = trio.CancelScope(shield=True)
        self._nursery: trio.Nursery | None = None
        self._early: list[Link] = []
        self._closed = False
        self.failure: BaseException | None = None
        self.topology = self._make_topology()
        known = SentinelDialer(self._host, options) if options.topology == "sentinel" else None
        self.subscriptions = Subscriptions(known or AnyNodeDialer(self._host, options, self.topology.known), options)

    def _make_topology(self) -> Topology:
        options, host = self._options, self._host
        if options.topology == "cluster":
            return Cluster(host, options, self._start)
        if options.topology == "sentinel":
            return SingleNode(
                f"sentinel service {options.service}", SentinelDialer(host, options), options, self._start
            )
        address = options.addresses[0]
        return SingleNode(address, NodeDialer(host, options, address), options, self._start)

    def _start(self, link: Link) -> None:
        if self._closed:
            link.close("the client was closed")
        elif self._nursery is None:
            self._early.append(link)
        else:
            self._nursery.start_soon(link.run)

    @enable_ki_protection
    async def run(self) -> None:
        """Serves the client until `close`. Whatever ends it, no call is left waiting.

        Raises:
            StorageMisconfigured: The chosen host of the asyncio loop does not exist here.
            InternalError: A link broke down because of a bug.
        """
        try:
            with self._scope:
                async with open_host(self._options.loop_host) as self._host.opened, trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self.subscriptions.run)
                    for link in self._early:
                        nursery.start_soon(link.run)
                    await self.topology.run()
                    await trio.sleep_forever()
        except BaseException as error:  # kept, and raised below
            self.failure = error
            while isinstance(self.failure, BaseExceptionGroup) and len(self.failure.exceptions) == 1:
                self.failure = self.failure.exceptions[0]  # nurseries within nurseries: one failure is told as one
        finally:
            self.close()
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Fails all waiting calls, ends all watches, and lets `run` end. May be called again."""
        self._closed = True
        for link in self.topology.links:
            link.close("the client was closed")
        self.subscriptions.close()
        self._scope.cancel()
