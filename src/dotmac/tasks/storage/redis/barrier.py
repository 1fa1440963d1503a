"""When a write counts as done: once the server says that it is on disk, or on enough replicas.

WAIT and WAITAOF speak of everything the connection wrote before them. So one of them behind each batch acknowledges
the whole batch (group commit): replies of writes are held back until its answer is there. It costs one round of
disk or replica per batch, not per write, since what arrives meanwhile makes the next batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .commands import pack


@dataclass(frozen=True, slots=True)
class Barrier:
    """The command behind a batch of writes, and what its answer must be.

    Attributes:
        packed: The command.
        what: Its name, for messages.
        local: Copies on this server's disk that are needed (0 or 1).
        replicas: Replicas that must have it.
    """

    packed: bytes
    what: str
    local: int
    replicas: int

    def holds(self, reply: Any) -> bool:
        """Whether everything before it is as durable as it has to be."""
        if isinstance(reply, list):
            return len(reply) > 1 and reply[0] >= self.local and reply[1] >= self.replicas
        return isinstance(reply, int) and reply >= self.replicas


def on_disk(milliseconds: int) -> Barrier:
    """WAITAOF: the write is in the append-only file on disk. Answers after this time at the latest."""
    return Barrier(pack((b"WAITAOF", 1, 0, milliseconds)), "WAITAOF", local=1, replicas=0)


def on_replicas(count: int, milliseconds: int) -> Barrier:
    """WAIT: so many replicas have the write in their memory."""
    return Barrier(pack((b"WAIT", count, milliseconds)), "WAIT", local=0, replicas=count)
