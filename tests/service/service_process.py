"""`dotmac-tasks serve` and `worker` as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from support.processes import spawn, wait_until

RUN = [sys.executable, "-c", "from dotmac.tasks.cli import main; main()"]
HERE = Path(__file__).parent
PATIENCE = 30


class ServiceProcess:
    """One process; its log is read from a file.

    Args:
        folder: Its working directory.
        command: ``serve`` or ``worker``, with its arguments.
        redis_url: Where everything is kept.
        files: File descriptors that the process may have; None: as many as this process.
    """

    def __init__(self, folder: Path, *command: str, redis_url: str, files: int | None = None) -> None:
        self._log = folder / f"{command[0]}-{time.monotonic_ns()}.log"
        environment = {**os.environ, "REDIS_URL": redis_url, "PYTHONPATH": str(HERE), "PYTHONUNBUFFERED": "1"}
        limit = [] if files is None else ["prlimit", f"--nofile={files}:{files}"]
        with self._log.open("wb") as log:
            self._process: subprocess.Popen[bytes] = spawn(
                [*limit, *RUN, *command, "--log", "json"], cwd=folder, env=environment, stdout=log, stderr=log
            )

    def lines(self) -> list[dict[str, Any]]:
        """Whole lines of the log so far."""
        whole = self._log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def logged(self, beginning: str) -> str:
        """Wait for a message that begins so; gives the rest of it."""

        def found() -> list[str]:
            assert self._process.poll() is None or self._has(beginning), self._log.read_text()
            return [
                line["message"].removeprefix(beginning)
                for line in self.lines()
                if line["message"].startswith(beginning)
            ]

        return wait_until(found, seconds=PATIENCE, what=beginning)[0]

    def _has(self, beginning: str) -> bool:
        return any(line["message"].startswith(beginning) for line in self.lines())

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        return self.logged("listening on ")

    @property
    def log(self) -> str:
        """Everything that was logged so far."""
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; gives its exit code."""
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill it as an operating system does that is out of memory."""
        self._process.kill()
        self._process.wait()


def serving(
    folder: Path, redis_url: str, *options: str, files: int | None = None
) -> AbstractContextManager[ServiceProcess]:
    """A service on a free port of loopback."""
    return running(folder, redis_url, "serve", "shop_app:manager", "--bind", "127.0.0.1:0", *options, files=files)


@contextmanager
def running(folder: Path, redis_url: str, *command: str, files: int | None = None) -> Iterator[ServiceProcess]:
    """A process that is gone afterwards."""
    process = ServiceProcess(folder, *command, redis_url=redis_url, files=files)
    try:
        yield process
    finally:
        process.kill()


def start_by_http(process: ServiceProcess, *steps: dict[str, Any]) -> str:
    """Start a saga there; gives its id."""
    body = {"tenant_id": "acme", "workflow_type": "order", "steps": list(steps)}
    answer = httpx.post(f"{process.url}/v1/sagas", json=body, timeout=PATIENCE)
    assert answer.status_code == 201, answer.text
    saga_id: str = answer.json()["saga_id"]
    return saga_id


def charge(gate: Path | None = None) -> dict[str, Any]:
    """A step that waits for a file."""
    return {
        "name": "Charge",
        "operation": "charge",
        "parameters": {} if gate is None else {"gate": str(gate)},
        "compensation_operation": "refund",
    }


def reached(gate: Path, attempt: int = 1) -> None:
    """Wait until a step waits for the file."""
    wait_until(Path(f"{gate}.reached-{attempt}").exists, seconds=PATIENCE, what=f"attempt {attempt} at {gate}")
