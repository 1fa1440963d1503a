"""Reads the URL of a Redis deployment into the fields of `RedisOptions`.

Own code, because redis-py's reader knows neither sentinels nor Clusters nor lists of hosts, ignores a path that
is not a number, and quotes in its errors what it could not read, which may be a part of the password.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dotmac.tasks.errors import InvalidInput

from .address import Address

_FIELD = "redis_url"
_SCHEMES = {
    "redis": ("standalone", False),
    "rediss": ("standalone", True),
    "unix": ("standalone", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_DEFAULT_PORTS = {"standalone": 6379, "cluster": 6379, "sentinel": 26379}
_MAX_PORT = 65535


def _flag(text: str) -> bool:
    lowered = text.lower()
    if lowered in {"1", "true", "yes", "on", "t", "y"}:
        return True
    if lowered in {"0", "false", "no", "off", "f", "n"}:
        return False
    raise ValueError


def _verification(text: str) -> str:
    if text not in {"none", "optional", "required"}:
        raise ValueError
    return text


_QUERY: dict[str, Callable[[str], Any]] = {
    "db": int,
    "socket_timeout": float,
    "retry_on_timeout": _flag,
    "max_connections": int,
    "client_name": str,
    "service": str,
}
_TLS_QUERY: dict[str, Callable[[str], Any]] = {
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_ciphers": str,
    "ssl_check_hostname": _flag,
    "ssl_cert_reqs": _verification,
}


def read_url(url: str) -> dict[str, Any]:
    """Returns the fields of `RedisOptions` that the URL states.

    Raises:
        InvalidInput: Which part is wrong and what would be accepted; never with text out of the URL.
    """
    if not isinstance(url, str):
        raise InvalidInput(_FIELD, "is a text such as redis://localhost:6379/0")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidInput(_FIELD, "is not a URL (a [bracket] of an IPv6 address is not closed?)") from None
    if parts.scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise InvalidInput(_FIELD, f"must begin with one of {known}; or, for a server of its own, embedded://")
    if parts.fragment:
        raise InvalidInput(_FIELD, "has a '#': write it as %23")
    topology, tls = _SCHEMES[parts.scheme]
    userinfo, _, hosts = parts.netloc.rpartition("@")
    found: dict[str, Any] = {"topology": topology, "tls": tls, **_credentials(userinfo)}
    if parts.scheme == "unix":
        if hosts:
            raise InvalidInput(_FIELD, "unix:// takes an absolute path: unix:///run/redis.sock")
        found["addresses"] = (Address(_socket_path(parts), 0),)
    else:
        found["addresses"] = tuple(_address(text, _DEFAULT_PORTS[topology]) for text in hosts.split(","))
        found.update(_path(parts.path, topology))
    found.update(_query(parts.query))
    return found


def _credentials(userinfo: str) -> dict[str, str]:
    username, _, password = userinfo.partition(":")
    found = {"username": unquote(username), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}


def _socket_path(parts: SplitResult) -> str:
    path = unquote(parts.path)
    if len(path) < 2:  # noqa: PLR2004 - "" or "/": no file is named
        raise InvalidInput(_FIELD, "has no path to the unix socket: unix:///run/redis.sock")
    return path


def _address(text: str, default_port: int) -> Address:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise InvalidInput(_FIELD, "has characters between ']' and the port")
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
    if not port:
        return Address(unquote(host) or "localhost", default_port)
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
        raise InvalidInput(
            _FIELD,
            f"has a port that is not a number from 1 to {_MAX_PORT} (percent-encode '/', '@', ':' in a password)",
        )
    return Address(unquote(host) or "localhost", int(port))


def _path(path: str, topology: str) -> dict[str, Any]:
    pieces = [unquote(piece) for piece in path.split("/")[1:] if piece]
    found: dict[str, Any] = {}
    if topology == "sentinel" and pieces:
        found["service"] = pieces.pop(0)
    if pieces:
        database = pieces.pop(0)
        if pieces or not (database.isascii() and database.isdigit()):
            raise InvalidInput(_FIELD, "has a path that is not a database number, such as /0")
        found["db"] = int(database)
    return found


def _query(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    tls_options: dict[str, Any] = {}
    for name, text in parse_qsl(query):
        reader = _QUERY.get(name) or _TLS_QUERY.get(name)
        if reader is None:
            raise InvalidInput(_FIELD, f"takes no other parameters than {', '.join([*_QUERY, *_TLS_QUERY])}")
        try:
            (found if name in _QUERY else tls_options)[name] = reader(text)
        except ValueError:
            raise InvalidInput(_FIELD, f"has a value of {name} that cannot be read") from None
    if tls_options:
        found["tls_options"] = tls_options
    return found
