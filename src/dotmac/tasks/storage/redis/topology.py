"""Which link carries which command, and what to do when it was the wrong one.

`SingleNode` is one link: a standalone server, or the master that sentinels name. `Cluster` (see `cluster`) has one
link per primary and a map of slots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from .address import Address
from .calls import Call
from .dialing import Dialer
from .link import Link
from .options import RedisOptions
from .replies import ErrorReply


class Topology(Protocol):
    """A deployment of Redis, seen as links."""

    @property
    def links(self) -> Sequence[Link]:
        """All open links, for their status."""

    def route(self, call: Call) -> Link:
        """Returns the link for a call by its slot, or by the target that a redirection gave it."""

    def redirect(self, call: Call, error: ErrorReply, link: Link) -> bool:
        """Takes note of MOVED or ASK, prepares the call for its next try; False if there is nowhere else to go."""

    def doubt(self, call: Call, link: Link) -> None:
        """The link's node answered the call as only one that is not in charge does: look again who is."""

    async def primaries(self, timeout: float) -> Sequence[Link]:  # noqa: ASYNC109 - one deadline for all steps
        """Returns the links of all nodes that take writes.

        Raises:
            StorageUnavailable: They could not be found out within `timeout` seconds.
        """

    def known(self) -> Sequence[Address]:
        """Returns addresses of nodes, at least one, for the connection that carries messages."""

    async def run(self) -> None:
        """Keeps the deployment in view until it is cancelled."""


class SingleNode:
    """One link to one server at a time."""

    def __init__(
        self, name: Address | str, dialer: Dialer, options: RedisOptions, start: Callable[[Link], None]
    ) -> None:
        self._options = options
        self._link = Link(name, dialer, options, self)
        start(self._link)

    @property
    def links(self) -> Sequence[Link]:
        """See `Topology.links`."""
        return (self._link,)

    def route(self, _call: Call) -> Link:
        """See `Topology.route`."""
        return self._link

    def redirect(self, _call: Call, _error: ErrorReply, _link: Link) -> bool:
        """See `Topology.redirect`. A server that redirects is a node of a Cluster, of which we were not told."""
        return False

    def doubt(self, call: Call, link: Link) -> None:
        """See `Topology.doubt`. The next connection asks the sentinels, or the name service, anew."""
        link.renew(call)

    async def primaries(self, timeout: float) -> Sequence[Link]:  # noqa: ASYNC109 - the protocol's signature
        """See `Topology.primaries`."""
        return (self._link,)

    def known(self) -> Sequence[Address]:
        """See `Topology.known`."""
        return self._options.addresses

    async def run(self) -> None:
        """See `Topology.run`: one link needs no upkeep."""

    def troubled(self, link: Link) -> None:
        """See `Keeper.troubled`: the link tries again by itself."""

    def adopt(self, calls: list[Call]) -> None:
        """See `Keeper.adopt`: the only link is never retired, so this has nothing to do."""
