"""The asyncio side of a connection: redis-py opens it, then its transport is ours.

redis-py's `Connection` connects, does TLS, authenticates, says HELLO and SELECT. Its reading and writing of
commands is what costs 250 to 400 microseconds each under trio-asyncio, so after the handshake the transport is
taken over with the public `BaseTransport.set_protocol`: from then on bytes arrive in a plain `asyncio.Protocol`,
with no task, future or timeout in between.

What is taken from redis-py 6 to 8 for this: the public constructor arguments and `connect()`, and two attributes
that all of them have, `_reader` and `_writer` (and one method, see `reaching`). No byte can be left in redis-py's
buffers at the take-over: the server speaks only when asked, and the handshake has read all its answers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection, UnixDomainSocketConnection
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from dotmac.tasks.errors import EnvironmentFault, StorageMisconfigured, StorageUnavailable

from .address import Address
from .options import RedisOptions
from .reaching import EncryptedTCPConnection, TCPConnection, connect
from .replies import ErrorReply, Remedy, remedy_for


class Wire(Protocol):
    """What the trio side may do with an open connection."""

    def write(self, data: bytes) -> None:
        """Queues bytes; never blocks. After the end of the connection it does nothing."""

    def read(self) -> bool:
        """Has `Sink.received` told of what has come already; whether it can be asked again, without waiting."""

    def abort(self) -> None:
        """Closes at once; may be called again. `Sink.lost` follows."""


class Sink(Protocol):
    """What an open connection tells the trio side, always in the trio thread."""

    def received(self, data: bytes) -> None:
        """Bytes came."""

    def lost(self, error: Exception | None) -> None:
        """The connection is gone, with an error or closed by the server. Nothing follows."""

    def paused(self) -> None:
        """The buffer for writing is full."""

    def resumed(self) -> None:
        """The buffer for writing has room again."""


class WireProtocol(asyncio.Protocol):
    """The asyncio side of a `Wire`: a host derives from it and brings the events over."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.transport: asyncio.WriteTransport | None = None
        self._stream_writer: asyncio.StreamWriter | None = None

    def take_over(self, connection: AbstractConnection) -> None:
        """Takes the transport out of a connection of redis-py, which is then as good as disconnected."""
        writer = connection._writer  # noqa: SLF001 - see the module's docstring
        if writer is None:
            raise StorageUnavailable("the connection was lost right after the handshake")
        connection._reader = connection._writer = None  # noqa: SLF001 - else its __del__ reports a leak
        self._stream_writer = writer  # its __del__ closes the transport, so it lives as long as the transport
        self.transport = writer.transport
        self.transport.set_protocol(self)
        if self.transport.is_closing():
            # Lost between the last answer of the handshake and this line: connection_lost went to redis-py.
            self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone; a host adds that the sink learns it."""
        self._stream_writer = None
        self.closed.set()


def connection_factory(options: RedisOptions, address: Address) -> Callable[[], AbstractConnection]:
    """Returns what makes redis-py's connection to one node of the deployment."""
    # Half, so that calls which wait for this connection have time left for a second try.
    timeout = options.socket_timeout / 2
    settings: dict[str, Any] = {
        "db": options.db,
        "username": options.username,
        "password": options.password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "client_name": options.client_name,
        "protocol": 3,
    }
    return _factory(settings, address, options)


def sentinel_factory(options: RedisOptions, address: Address) -> Callable[[], AbstractConnection]:
    """Returns what makes redis-py's connection to one sentinel."""
    # A sentinel that hangs must not use up the time of the calls that wait for a master: there are others to ask.
    timeout = min(1.0, options.socket_timeout / 2)
    settings: dict[str, Any] = {
        "username": options.sentinel_username,
        "password": options.sentinel_password,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "protocol": 3,
    }
    return _factory(settings, address, options)


def _factory(settings: dict[str, Any], address: Address, options: RedisOptions) -> Callable[[], AbstractConnection]:
    if not address.port:
        return lambda: UnixDomainSocketConnection(path=address.host, **settings)
    settings |= {"host": address.host, "port": address.port, **_keepalive(options.socket_timeout)}
    if options.tls:
        return lambda: EncryptedTCPConnection(**settings, **options.tls_options)
    return lambda: TCPConnection(**settings)


def _keepalive(timeout: float) -> dict[str, Any]:
    """Has the kernel notice a peer that is gone without a word.

    TCP_USER_TIMEOUT ends a connection whose bytes nobody acknowledges for half the time-out, which leaves the other
    half for a new one. A server that is merely slow acknowledges all the same.
    """
    wanted = {
        "TCP_KEEPIDLE": 15,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": max(1, int(timeout * 500)),
    }
    known = {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": known}


async def open_wire(
    make: Callable[[], AbstractConnection], protocol: WireProtocol, *, only_master: bool = False
) -> None:
    """Connects, authenticates, and gives the transport to `protocol`. Runs in asyncio.

    When it raises, also when it is cancelled, nothing is left open.

    Raises:
        StorageUnavailable: `only_master`, and the server says that it is not (yet) a master.
    """
    connection = make()
    try:
        await connect(connection)
        if only_master:
            await connection.send_command("ROLE")
            role = (await connection.read_response(disable_decoding=True))[0]
            if role != b"master":
                raise StorageUnavailable(f"the server that the sentinels name is a {role.decode()}, not a master (yet)")
        protocol.take_over(connection)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise


async def ask_once(make: Callable[[], AbstractConnection], *command: str) -> Any:
    """Asks one question on a connection of its own. Runs in asyncio."""
    connection = make()
    try:
        await connect(connection)
        await connection.send_command(*command)
        return await connection.read_response(disable_decoding=True)
    finally:
        await connection.disconnect(nowait=True)


def connect_error(error: Exception, address: Address, options: RedisOptions) -> EnvironmentFault:
    """Translates what redis-py raised while connecting.

    The text is kept, because it says what the matter is; a password in it (a server too old for HELLO echoes the
    arguments) is not.
    """
    text = str(error) or type(error).__name__
    for secret in (options.password, options.sentinel_password):
        if secret:
            text = text.replace(secret, "***")
    if isinstance(error, AuthenticationError | AuthenticationWrongNumberOfArgsError):
        return StorageMisconfigured(
            f"{address} refused the credentials ({text}): correct user and password in redis_url"
        )
    if isinstance(error, NoPermissionError):
        return StorageMisconfigured(
            f"{address} does not let this user connect ({text}): grant it with redis-cli ACL SETUSER USER +@connection"
        )
    if isinstance(error, ResponseError) and not _passes(text):
        return StorageMisconfigured(
            f"{address} refused the greeting ({text}): check the database number, and that it is Redis 7 or Valkey 8"
        )
    if isinstance(error.__context__, ssl.SSLCertVerificationError):
        return StorageMisconfigured(f"the certificate of {address} was not accepted ({text}): check ssl_ca_certs")
    return StorageUnavailable(f"cannot connect to {address}: {text}")


def _passes(refusal: str) -> bool:
    """Whether the server may greet us later, with nothing changed: it runs a long script, or has too many clients."""
    # redis-py knows the latter only in the words of a server that is no node of a Cluster.
    return remedy_for(ErrorReply(refusal)) is not Remedy.NONE or "max number of clients" in refusal


#: What redis-py and asyncio raise while connecting when the surroundings are at fault.
CONNECT_FAULTS = (RedisError, OSError, TimeoutError)
