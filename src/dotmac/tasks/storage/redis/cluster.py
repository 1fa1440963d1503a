"""A Redis Cluster as links: one per primary, a map of slots, and how both follow the Cluster's changes.

The map is only ever a guess, and the Cluster corrects it: MOVED names the right node for one slot, which is used
at once, and asks for a new map, which is read in the background. A node that cannot be reached asks for a new map
too, again and again until a failover has put another one in charge; calls that wait for it are then handed to the
new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import trio

from dotmac.tasks.errors import EnvironmentFault, StorageUnavailable

from .address import Address
from .calls import Call
from .commands import pack
from .dialing import NodeDialer
from .host import Host
from .link import Link
from .options import RedisOptions
from .replies import UNNAMED, ErrorReply, Remedy, redirection, remedy_for

SLOTS = 16384
ASKING = pack((b"ASKING",))
_READ_MAP = pack((b"CLUSTER", b"SLOTS"))
#: Seconds between two readings of the map: a failover makes every caller ask for one.
_PAUSE = 0.1


class Cluster:
    """The primaries of a Redis Cluster."""

    def __init__(self, host: Host, options: RedisOptions, start: Callable[[Link], None]) -> None:
        self._host = host
        self._options = options
        self._start = start
        self._links: dict[Address, Link] = {}
        self._slots: list[Address | None] = [None] * SLOTS
        self._primaries: tuple[Address, ...] = ()
        self._refusals: dict[Address, str] = {}  # what nodes said that gave no map
        self._wanted = trio.Event()
        self._read = trio.Event()

    @property
    def links(self) -> Sequence[Link]:
        """See `Topology.links`."""
        return tuple(self._links.values())

    def known(self) -> Sequence[Address]:
        """See `Topology.known`: the primaries, and the nodes that the options name."""
        return tuple(dict.fromkeys((*self._primaries, *self._options.addresses)))

    # --- routing --------------------------------------------------------------------------------------------

    def route(self, call: Call) -> Link:
        """See `Topology.route`. A slot that nobody is known to serve goes anywhere: the answer is MOVED."""
        address = call.target or self._slots[call.slot or 0]
        if address is None:
            self._wanted.set()
            address = self.known()[0]
        return self._link(address)

    def _link(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            link = Link(address, NodeDialer(self._host, self._options, address), self._options, self)
            self._links[address] = link
            self._start(link)
        return link

    def redirect(self, call: Call, error: ErrorReply, link: Link) -> bool:
        """See `Topology.redirect`."""
        slot, target = redirection(error, link.address)
        if remedy_for(error) is Remedy.ASK:
            call.target = target
            # ASKING holds for the one command after it, so a script that must be loaded first stands before it.
            call.prefaces = (*(packed for packed in call.prefaces if packed != ASKING), ASKING)
        else:
            self._slots[slot] = target
            call.target, call.prefaces = None, ()
            self._wanted.set()
        return True

    def doubt(self, call: Call, link: Link) -> None:
        """See `Topology.doubt`."""
        self._wanted.set()

    def troubled(self, link: Link) -> None:
        """See `Keeper.troubled`: perhaps another node is in charge by now."""
        self._wanted.set()

    def adopt(self, calls: list[Call]) -> None:
        """See `Keeper.adopt`: hands the calls of a node that is no longer in charge to those that are."""
        for call in calls:
            if call.slot is None:
                call.fail(StorageUnavailable(f"the node that {call.what} was meant for is no longer in charge"))
            else:
                call.target = None
                call.prefaces = ()
                self.route(call).accept(call)

    # --- the map --------------------------------------------------------------------------------------------

    async def primaries(self, timeout: float) -> Sequence[Link]:  # noqa: ASYNC109 - part of a longer operation
        """See `Topology.primaries`: reads the map anew, so that no node is missed."""
        read = self._read
        self._wanted.set()
        if self._links and all(link.breaker.is_open for link in self._links.values()):
            timeout = 0.0
        with trio.move_on_after(timeout):
            await read.wait()
            return [self._link(address) for address in self._primaries]
        raise StorageUnavailable(f"no node of the Cluster told its map within {timeout:g} s ({self._describe()})")

    async def run(self) -> None:
        """See `Topology.run`: reads the map whenever somebody had reason to doubt it."""
        self._wanted.set()
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            if not await self._read_map():
                self._wanted.set()
            await trio.sleep(_PAUSE)

    async def _read_map(self) -> bool:
        read = self._read
        # Nodes that we are connected to first: one that is gone costs its time-out.
        candidates = sorted(self.known(), key=lambda address: not self._is_connected(address))
        for address in candidates:
            call = Call(_READ_MAP, "CLUSTER SLOTS", None, min(1.0, self._options.socket_timeout), repeatable=True)
            try:
                reply = await self._link(address).ask(call)
            except EnvironmentFault:
                continue  # its link keeps what is wrong with it; the next node may know
            if isinstance(reply, ErrorReply) or not reply:
                self._refusals[address] = f"{address}: {reply.message if reply else 'it has no slots'}"
                continue
            self._learn(reply, address)
            self._read = trio.Event()
            read.set()
            return True
        return False

    def _is_connected(self, address: Address) -> bool:
        link = self._links.get(address)
        return link is not None and link.connected

    def _learn(self, reply: list[Any], told_by: Address) -> None:
        slots: list[Address | None] = [None] * SLOTS
        for first, last, primary, *_replicas in reply:
            host = (primary[0] or b"").decode()
            # Who is unnamed means: where you found me.
            address = Address(told_by.host if host in UNNAMED else host, primary[1])
            slots[first : last + 1] = [address] * (last - first + 1)
        self._slots, self._refusals = slots, {}
        self._primaries = tuple(dict.fromkeys(address for address in slots if address is not None))
        for address in [known for known in self._links if known not in self._primaries]:
            self._links.pop(address).retire()

    def _describe(self) -> str:
        def trouble(link: Link) -> str:
            known = link.status().trouble or self._refusals.get(link.address)
            return str(known or f"{link.name}: no trouble known")

        return "; ".join(map(trouble, self.links))
