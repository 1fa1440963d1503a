"""A real cluster for tests: every slot assigned, and slots that move while a test looks on.

It exists because MOVED, ASK and TRYAGAIN come from real slot moves only, and a test wants to stand in their middle.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dotmac.tasks.storage.embedded import find_server_binary

from .processes import wait_until
from .standalone import Server, running, server_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOTS = 16_384
MIGRATE_MILLISECONDS = 5_000
READY_SECONDS = 60.0


@dataclass(frozen=True)
class Cluster:
    """The nodes of a running cluster: primaries first, then replicas."""

    primaries: list[Server]
    replicas: list[Server]

    @property
    def nodes(self) -> list[Server]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        """The address of one node, from which a client finds the others."""
        return self.primaries[0].url

    def slot_of(self, key: str) -> int:
        return int(self.primaries[0].cli("CLUSTER", "KEYSLOT", key))

    def owner_of(self, slot: int) -> Server:
        """The node that serves the slot now, as a node that answers sees it."""
        for first, last, primary, *_ in self._any_alive().cli("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        message = f"slot {slot} has no owner"
        raise LookupError(message)

    def other_than(self, server: Server) -> Server:
        """A primary that is not `server`."""
        return next(primary for primary in self.primaries if primary is not server)

    def migrate(self, slot: int, target: Server) -> None:
        """Move a slot with its keys to another primary."""
        migration = self.begin_migration(slot, target)
        while migration.move(100):
            pass
        migration.finish()

    def begin_migration(self, slot: int, target: Server) -> Migration:
        """Open the move of a slot. From now on its owner answers ASK for keys that it does not have.

        It begins only when the nodes know each other's epochs: the target raises its own above those it knows, and
        without that the source's last words on a slot of before can take it from the target, and nobody serves it.
        """
        wait_until(self._knows_its_epochs, what="the nodes know each other's epochs")
        migration = Migration(cluster=self, slot=slot, source=self.owner_of(slot), target=target)
        target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(migration.source))
        migration.source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))
        return migration

    def wait_ready(self, *, seconds: float = READY_SECONDS) -> None:
        """Wait until every running node knows every node, every slot has an owner, and replicas are in sync."""
        wait_until(self._is_ready, seconds=seconds, what="the cluster is ready")

    def _is_ready(self) -> bool:
        for node in self.nodes:
            if not node.is_running:
                continue
            facts = str(node.cli("CLUSTER", "INFO"))
            if "cluster_state:ok\r" not in facts or f"cluster_slots_ok:{SLOTS}\r" not in facts:
                return False
            if f"cluster_known_nodes:{len(self.nodes)}\r" not in facts:
                return False
        return all(
            "master_link_status:up\r" in str(node.cli("INFO", "replication"))
            for node in self.replicas
            if node.is_running and node.cli("ROLE")[0] == "slave"
        )

    def _knows_its_epochs(self) -> bool:
        views = [
            {fields[0]: fields[6] for fields in map(str.split, str(node.cli("CLUSTER", "NODES")).splitlines())}
            for node in self.primaries
            if node.is_running
        ]
        return all(view == views[0] for view in views)

    def _any_alive(self) -> Server:
        return next(node for node in self.nodes if node.is_running)


@dataclass(frozen=True)
class Migration:
    """The move of a slot, under way: the test decides how far it has come."""

    cluster: Cluster
    slot: int
    source: Server
    target: Server

    def move(self, count: int = 1) -> int:
        """Move up to `count` keys of the slot; the number moved."""
        keys = self.source.cli("CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            self.source.cli("MIGRATE", self.target.host, self.target.port, "", 0, MIGRATE_MILLISECONDS, "KEYS", *keys)
        return len(keys)

    def finish(self) -> None:
        """Give the slot to the target: the source answers MOVED. Keys left behind must have been moved before.

        Every primary is told, the target first, as operators' tools do it. And it returns only when all agree: two
        moves in opposite directions, made faster than the nodes talk, can leave a slot with nobody.
        """
        owner = node_id(self.target)
        others = [node for node in self.cluster.primaries if node not in (self.target, self.source)]
        for node in (self.target, self.source, *others):
            if node.is_running:
                node.cli("CLUSTER", "SETSLOT", self.slot, "NODE", owner)
        wait_until(self._is_agreed, what=f"all nodes agree on the owner of slot {self.slot}")

    def _is_agreed(self) -> bool:
        views = {
            primary[1]
            for node in self.cluster.primaries
            if node.is_running
            for first, last, primary, *_ in node.cli("CLUSTER", "SLOTS")
            if first <= self.slot <= last
        }
        return views == {self.target.port}


def _knows(node: Server, other: str) -> bool:
    return other in str(node.cli("CLUSTER", "NODES"))


def node_id(server: Server) -> str:
    return str(server.cli("CLUSTER", "MYID"))


@contextlib.contextmanager
def cluster(n: int = 3, replicas: int = 0, *, binary: Path | None = None, aof: bool = False) -> Iterator[Cluster]:
    """A ready cluster of `n` primaries with `replicas` replicas each; a lost node is noticed after two seconds."""
    configuration = [
        "cluster-enabled yes",
        "cluster-config-file nodes.conf",
        "cluster-node-timeout 2000",
        "cluster-require-full-coverage no",
        "repl-diskless-sync-delay 0",
        f"appendonly {'yes' if aof else 'no'}",
    ]
    with contextlib.ExitStack() as stack:
        nodes = []
        for _ in range(n * (1 + replicas)):
            folder = stack.enter_context(server_folder())
            chosen = binary or find_server_binary()
            server = Server(binary=chosen, folder=folder, port=0, configuration=configuration)
            nodes.append(stack.enter_context(running(server, bus=True)))
        made = Cluster(primaries=nodes[:n], replicas=nodes[n:])
        _join(made)
        yield made


def _join(made: Cluster) -> None:
    first, *others = made.nodes
    count = len(made.primaries)
    for index, primary in enumerate(made.primaries):
        start, end = SLOTS * index // count, SLOTS * (index + 1) // count - 1
        primary.cli("CLUSTER", "ADDSLOTSRANGE", start, end)
        primary.cli("CLUSTER", "SET-CONFIG-EPOCH", index + 1)  # else they would have to settle who owns what
    for node in others:
        node.cli("CLUSTER", "MEET", first.host, first.port)
    for index, replica in enumerate(made.replicas):
        primary_id = node_id(made.primaries[index % count])
        wait_until(partial(_knows, replica, primary_id), what="a replica knows its primary")
        replica.cli("CLUSTER", "REPLICATE", primary_id)
    made.wait_ready()
