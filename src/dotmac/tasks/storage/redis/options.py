"""What the gateway is told: where the server is, who we are there, how long to wait.

One frozen object, checked once: a value that makes no sense is refused here, naming its field, and nothing later
has to doubt it. Secrets are kept out of `repr`, and no message made here quotes a URL, because a mistyped URL is
exactly the one whose parts are not where they should be (a password that contains ``/`` ends up in the port).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal

from dotmac.tasks.errors import InvalidInput

from .address import Address
from .barrier import Barrier
from .urls import read_url

Topology = Literal["standalone", "sentinel", "cluster"]
LoopHost = Literal["auto", "trio-asyncio", "thread"]

#: Options that are read before the connection's own.
_ELSEWHERE = ("cluster", "durability", "fsync", "partitions", "prefix", "redis_url", "replicas")

#: Commands sent and not answered yet, per node. Enough to fill a write of a megabyte; more adds waiting, not speed.
DEFAULT_WINDOW = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """How to reach one Redis deployment.

    Attributes:
        addresses: The server; or the sentinels; or some nodes of the Cluster.
        topology: ``standalone``, ``sentinel`` or ``cluster``.
        service: The name under which the sentinels know the master. Only for ``sentinel``.
        db: Database number. A Cluster has only 0.
        username: ACL user; None is the ``default`` user.
        password: Its password. Never shown.
        sentinel_username: ACL user at the sentinels.
        sentinel_password: Its password. Never shown.
        tls: Whether to speak TLS.
        tls_options: redis-py's ``ssl_…`` settings, for example ``{"ssl_ca_certs": "/etc/ca.pem"}``.
        socket_timeout: Seconds a call may take from asking to answer, waiting for room and connection included,
            unless the call brings its own time; also the silence after which a connection with unanswered
            commands counts as dead. One try to connect may take half of it.
        retry_on_timeout: Whether commands that are safe to repeat are sent again after a connection was lost
            with their replies outstanding. If not, they fail at once.
        max_connections: Accepted because other clients need it, checked, and otherwise without effect: one
            connection per node carries all commands, a second one messages.
        window: Commands sent and unanswered per node before further callers wait.
        client_name: What ``CLIENT LIST`` shows.
        loop_host: Where the asyncio loop lives: inside the trio run, in a thread, or as available. ``auto`` takes a
            thread where the trio run has one of its own, beside a program that uses asyncio itself.
        barrier: When writes count as done; None: when the server has carried them out.
    """

    addresses: tuple[Address, ...] = (Address("localhost", 6379),)
    topology: Topology = "standalone"
    service: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    socket_timeout: float = 5.0
    retry_on_timeout: bool = True
    max_connections: int | None = None
    window: int = DEFAULT_WINDOW
    client_name: str | None = "dotmac-tasks"
    loop_host: LoopHost = "auto"
    barrier: Barrier | None = None

    def __post_init__(self) -> None:
        self._check_types()
        self._check_numbers()
        self._check_topology()
        if self.username and not self.password:
            raise InvalidInput("password", "is missing: an ACL user is given, so its password is needed too")
        if self.loop_host not in {"auto", "trio-asyncio", "thread"}:
            raise InvalidInput("loop_host", "is one of auto, trio-asyncio, thread")
        if self.client_name is not None and not (self.client_name.isascii() and self.client_name.isprintable()):
            raise InvalidInput("client_name", "takes printable ASCII characters only")

    def _check_types(self) -> None:
        for name in ("service", "username", "password", "sentinel_username", "sentinel_password", "client_name"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):  # which may be a secret, and is not shown
                raise InvalidInput(name, f"is a text, not a {type(value).__name__}")
        for name in ("tls", "retry_on_timeout"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(name, f"is True or False, not {getattr(self, name)!r:.40}")
        if not isinstance(self.tls_options, Mapping):
            raise InvalidInput("tls_options", 'is a mapping, such as {"ssl_ca_certs": "/etc/ca.pem"}')
        addresses = self.addresses
        if not isinstance(addresses, tuple) or not all(isinstance(address, Address) for address in addresses):
            raise InvalidInput("addresses", "is made from the URL: give the servers in redis_url")
        if self.barrier is not None and not isinstance(self.barrier, Barrier):
            raise InvalidInput("barrier", "is made from the durability: give durability='fsync' or 'replica'")

    def _check_numbers(self) -> None:
        timeout = self.socket_timeout
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise InvalidInput("socket_timeout", "is a number of seconds greater than 0")
        for name, least in (("db", 0), ("window", 1), ("max_connections", 1)):
            value = getattr(self, name)
            if value is None and name == "max_connections":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInput(name, f"is a whole number, {least} or more")

    def _check_topology(self) -> None:
        if not self.addresses:
            raise InvalidInput("addresses", "names no server")
        if self.topology not in {"standalone", "sentinel", "cluster"}:
            raise InvalidInput("topology", "is one of standalone, sentinel, cluster")
        if self.topology == "standalone" and len(self.addresses) > 1:
            raise InvalidInput("addresses", "has several servers; say redis+cluster:// or redis+sentinel://")
        if self.topology == "sentinel" and not self.service:
            raise InvalidInput("service", "is missing: redis+sentinel://host:port,host:port/SERVICE/db")
        if self.topology != "sentinel" and self.service:
            raise InvalidInput("service", "means something only with sentinels: redis+sentinel://…")
        if self.topology == "cluster" and self.db:
            raise InvalidInput("db", "must be 0: a Redis Cluster has no other database")
        if self.topology != "standalone" and not all(address.port for address in self.addresses):
            raise InvalidInput("addresses", "are host:port for sentinels and Clusters")

    @classmethod
    def from_url(cls, url: str, /, **settings: Any) -> RedisOptions:
        """Reads a URL; keyword arguments are fields of this class and win over what the URL says.

        ``redis://user:password@host:6379/0``, ``rediss://…`` (TLS), ``unix://user:password@/path?db=0``,
        ``redis+sentinel://host:port,host:port/service/db``, ``redis+cluster://host:port,host:port`` and the last
        two with ``rediss``. ``cluster=True`` makes a Cluster of a plain ``redis://``.

        Raises:
            InvalidInput: The URL or a setting cannot be used; the message names the field and quotes no secret.
        """
        cluster = settings.pop("cluster", False)
        if not isinstance(cluster, bool):
            raise InvalidInput("cluster", f"is True or False, not {cluster!r:.40}")
        if cluster:
            settings["topology"] = "cluster"
        known = {each.name for each in fields(cls)}
        for name in settings:
            if name not in known:
                near = get_close_matches(name, (*known, *_ELSEWHERE), 1)
                meant = f"; did you mean {near[0]}?" if near else ""
                raise InvalidInput(name, f"is not a setting of the Redis connection{meant}")
        return cls(**{**read_url(url), **settings})
