"""Where the engine and its peers keep their state: a server or a database of their own, for as long as it is measured.

Each is a context manager that gives the address. What is not there raises `NotInstalled`; what does not answer in
time, `TimeoutError`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from benchmarks.peers.environments import NotInstalled, restate_server

from support.processes import port_candidates, spawn, wait_until
from support.servers import server_folder, standalone

AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL")


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


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL with a database of its own, which forces every commit to disk; the URL of that."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise NotInstalled("there is no PostgreSQL (Debian package postgresql)")
    with server_folder() as folder:
        become = list[str]()
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
            become = list(AS_POSTGRES)
        data, port = folder / "data", next(port_candidates())
        made = [*become, str(found[-1]), "-D", str(data), "-U", "postgres", "-A", "trust"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c max_connections=200"
        command = [*become, str(found[-1].with_name("postgres")), "-D", str(data), *options.split()]
        server = spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        try:
            wait_until(lambda: _is_open(port), what="PostgreSQL answers")
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/peer"
        finally:
            server.send_signal(signal.SIGINT)  # stop now, in order: its processes must be gone before its folder is
            server.wait()


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
