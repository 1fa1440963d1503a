"""Who is compared: what to install, what to start beside it, and when it calls a step durable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.peers.backends import postgres, redis, restate, sqlite
from benchmarks.peers.environments import python_with

from support.processes import DIE_WITH_PARENT

HERE = Path(__file__).parent
STANDBY, RESTARTED = "on a standby", "started again"
FSYNCED = "Redis protocol, AOF, appendfsync always"


@dataclass(frozen=True)
class Peer:
    """One of those that are compared.

    Attributes:
        name: As the rows have it.
        script: What runs in its environment, in this folder.
        durability: When it calls a step done.
        backend: Starts what it keeps its state in, and gives the address of that.
        requirements: What its environment needs; nothing for the engine, which runs where this runs.
        recovers: Where its work can go on when a worker was killed, as far as that is measured.
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


DBOS = ("dbos==3.4.0",)
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
        "DBOS 3.4.0, SQLite",
        "dbos",
        "rollback journal, synchronous=FULL (its default)",
        sqlite,
        DBOS,
        recovers=(STANDBY, RESTARTED),
    ),
    Peer("DBOS 3.4.0, PostgreSQL", "dbos", "fsync, synchronous_commit (its default)", postgres, DBOS, recovers=()),
)
