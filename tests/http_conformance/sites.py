"""The conformance app as each server serves it: a process with a port, a ledger and a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx

from support.processes import port_candidates, spawn, wait_until
from support.servers import Server, server_folder

TESTS = Path(__file__).parent.parent
START_ATTEMPTS = 10
APP = "http_conformance.conformance_app:app"
GRACEFUL = "{graceful}"
_HYPERCORN = ("-m", "hypercorn", "--workers", "0", "--graceful-timeout", GRACEFUL, "--worker-class")
_UVICORN = ("-m", "uvicorn", "--timeout-graceful-shutdown", GRACEFUL, "--loop")
KINDS = {
    "hypercorn-trio": (*_HYPERCORN, "trio"),
    # Without a master process, Hypercorn on trio does not handle SIGTERM.
    "hypercorn-trio-master": (*_HYPERCORN, "trio", "--workers", "1"),
    "hypercorn-asyncio": (*_HYPERCORN, "asyncio"),
    "uvicorn": (*_UVICORN, "asyncio"),
    "uvicorn-uvloop": (*_UVICORN, "uvloop"),
}


class PortTaken(RuntimeError):
    """Somebody else was faster to bind the port."""


@dataclass(frozen=True)
class Ledger:
    """What handlers noted, in whichever process: a file for each effect."""

    folder: Path

    def entries(self, effect: str) -> list[str]:
        """What was noted under this effect, in order."""
        file = self.folder / effect
        return file.read_text().splitlines() if file.exists() else []

    def open_gate(self, effect: str) -> None:
        """Let the handlers go on that wait under this effect."""
        (self.folder / f"{effect}.gate").touch()


class Site:
    """One server process.

    Attributes:
        kind: One of `KINDS`.
        redis: Where its records are; None: in its memory.
        prefix: Of its keys there.
        patience: Seconds that it waits for Redis.
        graceful: Seconds that the server lets requests end once it is told to end.
        root_path: What a proxy is said to have cut off from the paths that arrive.
    """

    def __init__(
        self, kind: str, ledger: Ledger, redis: str | None, prefix: str, *, sealed: bytes | None = None
    ) -> None:
        self.kind = kind
        self.ledger = ledger
        self.redis = redis
        self.prefix = prefix
        self.patience = 5.0
        self.root_path = ""
        self.graceful = 5
        self.port = 0
        self._sealed = sealed
        self._process: subprocess.Popen[bytes] | None = None
        self._log = ledger.folder / f"log-{uuid4().hex}"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace")

    @property
    def speaks_http2(self) -> bool:
        """Whether it understands HTTP/2 without TLS."""
        return self.kind.startswith("hypercorn")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server's."""
        assert self._process is not None, "the server does not run"
        return self._process

    def start(self) -> None:
        """Start it, on a port that nobody has, and return when it answers."""
        for attempt, port in enumerate(port_candidates(), 1):
            self.port = port
            try:
                self._start()
            except PortTaken:
                if attempt == START_ATTEMPTS:
                    raise
            else:
                return

    def _start(self) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DOTMAC_TASKS_")},
            "PYTHONPATH": str(TESTS),
            "CONFORMANCE_LEDGER": str(self.ledger.folder),
            "CONFORMANCE_PREFIX": self.prefix,
            "CONFORMANCE_PATIENCE": str(self.patience),
        }
        if self.redis is not None:
            environment["CONFORMANCE_REDIS"] = self.redis
        if self._sealed is not None:
            environment["CONFORMANCE_SEAL"] = self._sealed.decode()
        address = ("--port", str(self.port)) if "uvicorn" in self.kind else ("--bind", f"127.0.0.1:{self.port}")
        below = ("--root-path", self.root_path) if self.root_path else ()
        words = [str(self.graceful) if word == GRACEFUL else word for word in KINDS[self.kind]]
        command = [sys.executable, *words, *below, *address, APP]
        with self._log.open("wb") as log:
            self._process = spawn(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, seconds=60, what=f"{self.kind} answers")

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            process, self._process = self.process, None
            kind = PortTaken if "ddress already in use" in self.log else RuntimeError
            raise kind(f"{self.kind} ended with {process.returncode}\n{self.log}")
        try:
            return httpx.get(f"{self.url}/ready", timeout=10, trust_env=False).text == "ready"
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Have it stop by itself."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        told = "it did not end by itself"
        assert process.returncode in {0, -signal.SIGTERM}, f"{told}: {process.returncode}\n{self.log}"

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self.process, None
        process.kill()
        process.wait()

    def died(self) -> None:
        """It was killed by what it ran: note that it is gone."""
        process, self._process = self.process, None
        assert process.wait(30) == -signal.SIGKILL

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def serving(
    kind: str,
    ledger: Ledger,
    redis: Server | None,
    prefix: str,
    *,
    sealed: bytes | None = None,
    patience: float = 5.0,
    root_path: str = "",
    graceful: int = 5,
) -> Iterator[Site]:
    """A site that runs. The test may kill it."""
    site = Site(kind, ledger, None if redis is None else redis.url, prefix, sealed=sealed)
    site.patience = patience
    site.root_path = root_path
    site.graceful = graceful
    try:
        site.start()
        yield site
    finally:
        site.stop()


@contextmanager
def fresh_ledger() -> Iterator[Ledger]:
    """A ledger without entries."""
    with server_folder() as folder:
        yield Ledger(folder)
