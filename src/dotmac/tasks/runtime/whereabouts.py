"""Names a process for people, and each worker in it, never two the same."""

from __future__ import annotations

import os
import secrets
import socket


def process_name() -> str:
    """The host, and the process on it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def fresh_worker_id() -> str:
    """The id of a worker that begins: its host, its process, and what tells it from an earlier one of that process."""
    return f"{process_name()}:{secrets.token_hex(4)}"


def whereabouts() -> dict[str, str]:
    """Where a worker of this process is, for its registration."""
    return {"host": socket.gethostname(), "pid": str(os.getpid())}
