"""Names a worker for people, and never twice."""

from __future__ import annotations

import os
import secrets
import socket


def fresh_worker_id() -> str:
    """The id of a worker that begins: its host, its process, and what tells it from an earlier one of that process."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def whereabouts() -> dict[str, str]:
    """Where a worker of this process is, for its registration."""
    return {"host": socket.gethostname(), "pid": str(os.getpid())}
