"""A limit on failed sign-ins, per client address and over all addresses, in constant memory.

Each failed sign-in takes one from an allowance that refills steadily. While an allowance is used up, each sign-in is
refused unread, also one with a known token. Behind a proxy all clients share the proxy's address.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

import trio

FAILURES = 10
"""Failed sign-ins that an address has at once; one more every `REFILL` seconds."""

REFILL = 6.0
_ALL_FAILURES = 100  # over all addresses
_ALL_REFILL = 0.6
_MOST_ADDRESSES = 1000  # the one that failed least recently is forgotten; the limit over all addresses stays
_IPV6_NETWORK = 64  # bits: what one subscriber of a provider has


@dataclass(slots=True)
class _Allowance:
    most: int
    refill: float  # seconds for one
    full_at: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until there is one; 0: now."""
        return max(round(self.full_at - now - (self.most - 1) * self.refill, 6), 0.0)

    def take(self, now: float) -> None:
        self.full_at = max(self.full_at, now) + self.refill


class Attempts:
    """The failed sign-ins of one service."""

    def __init__(self) -> None:
        self._all = _Allowance(_ALL_FAILURES, _ALL_REFILL)
        self._by_address: OrderedDict[str, _Allowance] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until a sign-in from the address is looked at; 0: now."""
        now = trio.current_time()
        known = self._by_address.get(_network(address))
        return max(self._all.wait(now), 0.0 if known is None else known.wait(now))

    def failed(self, address: str) -> None:
        """Count a failed sign-in from the address; `wait` was 0."""
        now, network = trio.current_time(), _network(address)
        allowance = self._by_address.pop(network, None) or _Allowance(FAILURES, REFILL)
        self._by_address[network] = allowance
        if len(self._by_address) > _MOST_ADDRESSES:
            self._by_address.popitem(last=False)
        allowance.take(now)
        self._all.take(now)


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed), _IPV6_NETWORK), strict=False))
    return str(parsed)
