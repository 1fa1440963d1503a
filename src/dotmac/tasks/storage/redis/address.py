"""The address of one server: what links are named by, slots point to and error messages quote."""

from __future__ import annotations

from typing import NamedTuple


class Address(NamedTuple):
    """Where a server listens: host and port, or (port 0) the path of a unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
