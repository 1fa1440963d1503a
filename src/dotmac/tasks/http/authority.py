"""For which host a request is meant, in one spelling. Pure.

An application may serve several hosts (Starlette's ``Host`` routes), so a response belongs to the host that it was
made for. The scope alone is read: what a proxy says in headers is the business of the server's proxy middleware.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Any

from ..errors import InvalidInput

# RFC 9110, section 7.2, and RFC 3986, section 3.2.2; no alternative begins like another, so it reads in linear time.
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|((?:[!$&'()*+,;=._~0-9A-Za-z-]|%[0-9A-Fa-f]{2})+))(?::([0-9]*))?\Z")
_NUMERIC = re.compile(rb"[0-9.]+\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_LARGEST_PORT = 65_535
_LOOPBACK = frozenset({b"localhost"})


def origin_of(scope: Mapping[str, Any], routed_by: str = "") -> str:
    """Scheme and authority of a request, such as ``https://shop.example``.

    Upper case, a trailing dot and the default port of the scheme make no difference. An address, ``localhost`` and a
    missing Host header name a process and no application: the authority is empty then, so that a client which
    reaches the processes of one application by their addresses meets one record at all of them. Where the application
    has chosen a route by the host, an address names that route as well as a name does.

    Args:
        scope: Of the request.
        routed_by: The pattern of the host by which the application chose a route; empty: it did not look at the host.

    Raises:
        InvalidInput: The Host header is malformed, or there are several.
    """
    scheme = str(scope.get("scheme") or "http").lower()
    lines = [value for name, value in scope["headers"] if name.lower() == b"host"]
    origin = f"{scheme}://{_authority(lines, scheme, addresses=bool(routed_by))}"
    return f"{origin} {routed_by}" if routed_by else origin


def _authority(lines: list[bytes], scheme: str, *, addresses: bool) -> str:
    if not lines:
        return ""
    if len(lines) > 1:
        raise InvalidInput("Host", f"must be sent once, not {len(lines)} times")
    found = _HOST.match(lines[0].strip(b" \t"))
    if found is None:
        raise InvalidInput("Host", "must be a host name or an address, and a port where it is not the default one")
    address, name, digits = found.groups()
    port = _port(digits)
    if address is not None:
        host, is_address = f"[{_ipv6(address)}]", True
    else:
        name = name.lower().removesuffix(b".")
        if not name:
            raise InvalidInput("Host", "must be a host name or an address, not a dot")
        host, is_address = name.decode("ascii"), bool(_NUMERIC.match(name)) or name in _LOOPBACK
    if is_address and not addresses:
        return ""
    return host if port in {None, _DEFAULT_PORTS.get(scheme)} else f"{host}:{port}"


def _port(digits: bytes | None) -> int | None:
    stripped = (digits or b"").lstrip(b"0") or (b"0" if digits else b"")
    if not stripped:
        return None
    if len(stripped) > len(str(_LARGEST_PORT)) or int(stripped) > _LARGEST_PORT:
        raise InvalidInput("Host", f"must have a port up to {_LARGEST_PORT}")
    return int(stripped)


def _ipv6(address: bytes) -> IPv6Address:
    try:
        return IPv6Address(address.decode("ascii"))
    except ValueError:
        raise InvalidInput("Host", "must have an IPv6 address in its brackets") from None
