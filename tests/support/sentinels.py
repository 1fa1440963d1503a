"""A real primary, its replica and three sentinels for tests, with a fail-over on demand.

It exists because a client's Sentinel support is right only if it follows a real fail-over.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dotmac.tasks.storage.embedded import find_server_binary

from .processes import wait_until
from .standalone import ErrorReply, Server, running, server_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAILOVER_SECONDS = 60.0
QUORUM = 2
SENTINELS = 3


@dataclass(frozen=True)
class Sentinels:
    """The servers and the sentinels that watch them under the name `name`."""

    name: str
    servers: list[Server]
    sentinels: list[Server]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every sentinel, as redis-py's `Sentinel` takes them."""
        return [(sentinel.host, sentinel.port) for sentinel in self.sentinels]

    @property
    def primary(self) -> Server:
        """The server that most sentinels that run call the primary."""
        named = [sentinel.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name) for sentinel in self._running()]
        ports = [int(port) for _, port in named]
        port = max(ports, key=ports.count)
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> Server:
        """The other server."""
        primary = self.primary
        return next(server for server in self.servers if server is not primary)

    def failover(self) -> Server:
        """Have the sentinels make the replica the primary, without a failure; the new primary, accepting writes."""
        old = self.primary
        for patience in (FAILOVER_SECONDS / 3, FAILOVER_SECONDS):
            wait_until(self._order_failover, seconds=FAILOVER_SECONDS, what="a sentinel accepts the fail-over")
            # A sentinel gives a fail-over up that does not get on in time, and says so nowhere: order it again.
            with contextlib.suppress(TimeoutError):
                return self.wait_for_primary(other_than=old, seconds=patience)
        message = f"two fail-overs of {self.name} came to nothing"
        raise TimeoutError(message)

    def wait_for_primary(self, *, other_than: Server | None = None, seconds: float = FAILOVER_SECONDS) -> Server:
        """Wait until all sentinels agree on a primary (that is not `other_than`) and it calls itself one."""
        settled = wait_until(
            lambda: self._settled(other_than), seconds=seconds, what="the sentinels agree on a primary"
        )
        assert settled is not None
        return settled

    def wait_ready(self) -> None:
        """Wait until every sentinel knows the replica and the other sentinels, and the replica follows the primary."""
        wait_until(self._is_ready, seconds=FAILOVER_SECONDS, what="the sentinels know each other")

    def _order_failover(self) -> bool:
        try:
            self._running()[0].cli("SENTINEL", "FAILOVER", self.name)
        except ErrorReply as error:
            if "NOGOODSLAVE" in str(error) or "INPROG" in str(error):
                return False
            raise
        return True

    def _settled(self, other_than: Server | None) -> Server | None:
        named = {self._named_by(sentinel) for sentinel in self._running()}
        if len(named) != 1:
            return None
        server = next(server for server in self.servers if server.port in named)
        if server is other_than or not server.is_running:
            return None
        try:
            return server if server.cli("ROLE")[0] == "master" else None
        except ConnectionError:  # it drops its clients as it changes its role
            return None

    def _named_by(self, sentinel: Server) -> int:
        return int(sentinel.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])

    def _is_ready(self) -> bool:
        primary, replica = self.primary, self.replica
        wanted = f"status=ok,address=127.0.0.1:{primary.port},slaves=1,sentinels={SENTINELS}"
        if not all(wanted in sentinel.cli("INFO", "sentinel") for sentinel in self._running()):
            return False
        try:
            facts = str(replica.cli("INFO", "replication"))
        except ConnectionError:  # it drops its clients as it becomes one
            return False
        return f"master_port:{primary.port}\r" in facts and "master_link_status:up\r" in facts

    def _running(self) -> list[Server]:
        return [sentinel for sentinel in self.sentinels if sentinel.is_running]


@contextlib.contextmanager
def sentinel(name: str = "primary", *, binary: Path | None = None, down_after: float = 1.0) -> Iterator[Sentinels]:
    """A primary, a replica in sync, and three sentinels that know each other.

    Args:
        name: Under which the sentinels watch the primary.
        binary: Another server than the one that the embedded storage would use.
        down_after: Seconds without an answer after which a sentinel takes a server for down.
    """
    chosen = binary or find_server_binary()
    with contextlib.ExitStack() as stack:

        def start(*configuration: str, arguments: tuple[str, ...] = ()) -> Server:
            folder = stack.enter_context(server_folder())
            server = Server(
                binary=chosen, folder=folder, port=0, configuration=list(configuration), arguments=arguments
            )
            return stack.enter_context(running(server))

        primary = start("repl-diskless-sync-delay 0")
        replica = start("repl-diskless-sync-delay 0", f"replicaof {primary.host} {primary.port}")
        watch = [
            f"sentinel monitor {name} {primary.host} {primary.port} {QUORUM}",
            f"sentinel down-after-milliseconds {name} {int(down_after * 1000)}",
            f"sentinel failover-timeout {name} 5000",
        ]
        sentinels = [start(*watch, arguments=("--sentinel",)) for _ in range(SENTINELS)]
        for watcher in sentinels:  # by default it looks for replicas once in 10 s, and says hello once in 2 s
            watcher.cli("SENTINEL", "DEBUG", "INFO-PERIOD", 200, "PUBLISH-PERIOD", 200)
        made = Sentinels(name=name, servers=[primary, replica], sentinels=sentinels)
        made.wait_ready()
        yield made
