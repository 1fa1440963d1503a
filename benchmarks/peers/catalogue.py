"""Who is compared: what to install, what to start beside it, and when it calls a step durable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from benchmarks.peers.environments import python_with, restate_server

from support.processes import DIE_WITH_PARENT, port_candidates, spawn, wait_until
from support.servers import server_folder, standalone

HERE = Path(__file__).parent
STANDBY, RESTARTED = "on a standby", "started again"
FSYNCED = "Redis protocol, AOF, appendfsync always"


@contextmanager
def redis() -> Iterator[str]:
    """A server that answers when a write is on disk; its URL."""
    with standalone("appendfsync always", aof=True) as server:
        yield server.url


@contextmanager
def sqlite() -> Iterator[str]:
    """The URL of a database that does not exist yet."""
    with server_folder() as folder:
        yield f"sqlite:///{folder}/peer.sqlite"


@contextmanager
def restate() -> Iterator[str]:
    """Restate's server; URLs of its ingress, of its admin API, and of the service that is to be registered."""
    binary = restate_server()
    with server_folder() as folder:
        ingress, admin, fabric, service = islice(port_candidates(), 4)
        environment = {
            "RESTATE_BASE_DIR": str(folder),
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_IP": "127.0.0.1",
            "RESTATE_BIND_PORT": str(fabric),
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "warn",
        }
        with (folder / "log").open("wb") as log:
            server = spawn([binary, "--no-logo"], env=os.environ | environment, stdout=log, stderr=log, cwd=folder)
        try:
            # Its ports are open when it can be asked.
            wait_until(lambda: _is_open(ingress) and _is_open(admin), what="Restate's server answers")
            yield " ".join(f"http://127.0.0.1:{port}" for port in (ingress, admin, service))
        finally:
            server.kill()
            server.wait()


def _is_open(port: int) -> bool:
    answer = subprocess.run(
        [sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return answer.returncode == 0


@dataclass(frozen=True)
class Peer:
    """One of those that are compared.

    Attributes:
        name: As the rows have it.
        script: What runs in its environment, in this folder.
        durability: When it calls a step done.
        backend: Starts what it keeps its state in, and gives the address of that.
        requirements: What its environment needs; nothing for the engine, which runs where this runs.
        recovers: Where its work can go on when a worker was killed.
    """

    name: str
    script: str
    durability: str
    backend: Callable[[], AbstractContextManager[str]]
    requirements: tuple[str, ...] = ()
    recovers: tuple[str, ...] = (STANDBY,)

    def start(self, *arguments: str, errors: IO[str] | int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start its script in such a way that it ends with this process. Raises `NotInstalled`."""
        python = python_with(self.script, self.requirements)
        script = [str(python), "-W", "ignore", "-m", f"benchmarks.peers.{self.script}_worker", *arguments]
        return subprocess.Popen(
            [sys.executable, "-I", "-S", DIE_WITH_PARENT, str(os.getpid()), *script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=HERE.parents[1],  # where the script finds the module that it shares with the others
        )


ENGINE = Peer("dotmac-tasks", "engine", FSYNCED, redis, recovers=(STANDBY, RESTARTED))
PEERS = (
    ENGINE,
    Peer("docket 0.27.0", "docket", FSYNCED, redis, ("pydocket==0.27.0",)),
    Peer("taskiq 0.13.0", "taskiq", FSYNCED, redis, ("taskiq==0.13.0", "taskiq-redis==1.2.4")),
    Peer("streaq 7.2.0", "streaq", FSYNCED, redis, ("streaq==7.2.0",)),
    Peer(
        "Restate 1.7.12",
        "restate",
        "its own log, fsync (its default)",
        restate,
        ("restate-sdk==1.3.0", "hypercorn==0.18.0", "httpx==0.28.1"),
        recovers=(RESTARTED,),
    ),
    Peer(
        "DBOS 3.4.0",
        "dbos",
        "SQLite, rollback journal, synchronous=FULL (its default)",
        sqlite,
        ("dbos==3.4.0",),
        recovers=(STANDBY, RESTARTED),
    ),
)
