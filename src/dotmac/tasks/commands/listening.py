"""What `serve` is told about its listening, examined before anything starts."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from ..errors import DotmacTasksError, InvalidInput

_ADDRESS = re.compile(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:/]+)):(?P<port>[0-9]{1,5})")
_UNIX = "unix:"
_LAST_PORT = 65535
_FOR_NOW = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})


class CannotListen(DotmacTasksError):
    """Somebody else listens there, or this machine has no such address: both may change, so supervisors try again."""


def check_addresses(binds: Iterable[str]) -> None:
    """Refuse what is no address. Raises InvalidInput."""
    for bind in binds:
        found = _ADDRESS.fullmatch(bind)
        if found is None and (not bind.startswith(_UNIX) or bind == _UNIX):
            raise InvalidInput("--bind", f"{bind!r} is no HOST:PORT, [IPv6]:PORT or unix:PATH")
        if found is not None and int(found["port"]) > _LAST_PORT:
            raise InvalidInput("--bind", f"{bind!r} has no port from 0 to {_LAST_PORT}")


def try_addresses(binds: Iterable[str]) -> None:
    """Listen on all of these for a moment: where that cannot be, it is told before anything starts.

    Args:
        binds: Of `check_addresses`.

    Raises:
        CannotListen: Naming the address, which may be there or free later.
        InvalidInput: Naming the address, which is none here.
    """
    with ExitStack() as open_ones:
        for bind in binds:
            try:
                _try_path(bind) if bind.startswith(_UNIX) else open_ones.enter_context(_opened(bind))
            except (OSError, UnicodeError, TypeError) as error:  # the last ones: the name cannot be encoded
                told = f"cannot listen on {bind!r}: {getattr(error, 'strerror', None) or error}"
                if _may_change(bind, error):
                    raise CannotListen(f"--bind: {told}") from error
                raise InvalidInput("--bind", told) from error


def _may_change(bind: str, error: Exception) -> bool:
    # At a path there is no "in use": it is another kind of file that lies there.
    by_name = isinstance(error, socket.gaierror)
    return by_name or (not bind.startswith(_UNIX) and isinstance(error, OSError) and error.errno in _FOR_NOW)


def _opened(bind: str) -> socket.socket:
    # The server's own way: the same families and options, or what is possible here might not be there.
    found = _ADDRESS.fullmatch(bind)
    assert found is not None  # noqa: S101 - it was checked
    host = found["six"] or found["host"]
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, int(found["port"])))
        opened.listen()
    except BaseException:  # Ctrl-C too: nobody else knows of the socket yet
        opened.close()
        raise
    return opened


def _try_path(bind: str) -> None:
    path = Path(bind.removeprefix(_UNIX))
    if path.is_socket():  # of an earlier run: the server removes it
        return
    with socket.socket(socket.AF_UNIX) as tried:
        tried.bind(str(path))
    path.unlink()


def check_tls(certfile: Path | None, keyfile: Path | None) -> None:
    """Refuse half a pair, which would be no TLS at all, and files that are no certificate and its key.

    Raises:
        InvalidInput: Naming the option or the file.
    """
    if certfile is None and keyfile is None:
        return
    if keyfile is None:
        raise InvalidInput("--certfile", "needs --keyfile too")
    if certfile is None:
        raise InvalidInput("--keyfile", "needs --certfile too")
    for option, path in (("--certfile", certfile), ("--keyfile", keyfile)):
        try:
            path.open("rb").close()
        except OSError as error:  # the error of ssl names no file
            raise InvalidInput(option, f"{path}: {error.strerror or error}") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
    except ssl.SSLError as error:
        told = f"{certfile} and {keyfile} are not a certificate chain and its key, as PEM: {error}"
        raise InvalidInput("--certfile", told) from error
