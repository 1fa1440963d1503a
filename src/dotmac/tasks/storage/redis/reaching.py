"""Connecting to a host name that may have several addresses. Runs in asyncio.

asyncio tries them one after the other, and the first one that does not answer uses up all the time to connect, so
that those behind it are never reached. Its remedy (happy eyeballs) can lose a socket that is connected in the moment
in which it is cancelled. So each address gets its share of the time here, and redis-py a socket that is connected.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection

from dotmac.tasks.errors import StorageMisconfigured

_changing = threading.Lock()
_running: dict[tuple[str, int], Future[list[Any]]] = {}
_looked_up: dict[tuple[str, int], list[Any]] = {}  # addresses by name; as many as the options and the servers name
_log = logging.getLogger(__name__)


class TCPConnection(Connection):
    """redis-py's connection without encryption, on a socket of ours.

    Attributes:
        reached: The socket, until redis-py takes it.
    """

    reached: socket.socket | None = None

    def _connection_arguments(self) -> Mapping[str, Any]:  # of redis-py 6 to 8: what asyncio is asked to open
        arguments = dict(super()._connection_arguments())
        if self.reached is not None:
            del arguments["host"], arguments["port"]
            arguments["sock"], self.reached = self.reached, None
        return arguments


class EncryptedTCPConnection(TCPConnection, SSLConnection):
    """The same with TLS."""

    def read_files(self) -> None:
        """Have redis-py read certificates and key, which it keeps.

        Raises:
            StorageMisconfigured: One cannot be used. redis-py would tell it as a server that cannot be reached.
        """
        try:
            super()._connection_arguments()
        except OSError as error:
            raise StorageMisconfigured(
                f"the files for TLS cannot be used ({error}): check ssl_ca_certs, ssl_certfile and ssl_keyfile"
            ) from error

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "server_hostname": self.host}


async def connect(connection: AbstractConnection) -> None:
    """Connect, and greet the server."""
    if isinstance(connection, EncryptedTCPConnection):
        connection.read_files()
    if isinstance(connection, TCPConnection):
        connection.reached = await _reach(connection.host, connection.port, connection.socket_connect_timeout or 0.0)
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py types it not
    finally:
        if isinstance(connection, TCPConnection) and connection.reached is not None:
            connection.reached.close()  # it did not get as far as to take it


async def _reach(host: str, port: int, seconds: float) -> socket.socket:
    """A socket that is connected to the first address of the host that answers."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    found = await _addresses(host, port, seconds)
    failure: OSError | None = None
    for passed, (family, kind, protocol, _, address) in enumerate(found):
        one = socket.socket(family, kind, protocol)
        try:
            one.setblocking(False)
            async with asyncio.timeout((ends - loop.time()) / (len(found) - passed)):
                await loop.sock_connect(one, address)
        except BaseException as error:  # a cancellation too: nobody else knows of the socket yet
            one.close()
            if not isinstance(error, OSError):
                raise
            failure = TimeoutError(f"{address[0]} does not answer") if isinstance(error, TimeoutError) else error
        else:
            return one
    raise failure or OSError(f"{host} has no address")


def _look_up(host: str, port: int) -> Future[list[Any]]:
    """Look a name up in a separate thread; a second call for a name that is being looked up joins the first.

    The threads of an event loop would not do: others may hold them all, and one that hangs cannot be left.
    """
    name = host, port
    with _changing:
        running = _running.get(name)
        if running is not None:
            return running
        running = _running[name] = Future()
        running.set_running_or_notify_cancel()  # a caller that gives up leaves it to the others

    def run() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as error:  # raised where it is waited for
            _running.pop(name, None)
            running.set_exception(error)
        else:
            _running.pop(name, None)
            running.set_result(found)

    threading.Thread(target=run, name=f"dotmac-tasks look-up of {host}", daemon=True).start()
    return running


async def _addresses(host: str, port: int, seconds: float) -> list[Any]:
    try:  # an address needs no thread to look it up
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    # A name service that is away must not keep us from a server that is there.
    known = _looked_up.get((host, port))
    try:
        async with asyncio.timeout(seconds / 2 if known else seconds):
            found = await asyncio.wrap_future(_look_up(host, port))
    except (TimeoutError, socket.gaierror) as error:
        if known:
            _log.warning("the name service does not tell the address of %s; trying the last known one", host)
            return known
        if isinstance(error, TimeoutError):
            raise TimeoutError(f"the name service does not answer for {host}") from None
        raise
    _looked_up[host, port] = found
    return found
