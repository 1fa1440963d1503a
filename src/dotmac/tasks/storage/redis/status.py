"""How links are doing, for health checks, metrics and tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """How a link is doing.

    Attributes:
        name: The node, as ``host:port``, or the name of the Sentinel service.
        connected: Whether there is a connection.
        connections: How many there have been so far.
        queued: Calls not sent yet.
        unanswered: Commands sent and not answered, including those whose caller has given up.
        trouble: What went wrong last while connecting; None while connected.
        away: Whether the circuit breaker is open, so that calls fail at once.
    """

    name: str
    connected: bool
    connections: int
    queued: int
    unanswered: int
    trouble: str | None
    away: bool
