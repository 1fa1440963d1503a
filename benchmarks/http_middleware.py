"""What the middleware costs an app, beside the app without it and beside two packages from PyPI, in one run.

`python benchmarks/http_middleware.py [seconds] [connections]`. A Starlette route that reads and answers a small JSON
document is put under load by wrk (Debian package `wrk`), one server process at a time:

- without the middleware;
- with it, each request under a new key (claim, handler, stored response);
- with it, every request under one key (replays, but for the first).

On memory and on Redis (the tests' Valkey, appendonly everysec), under Hypercorn's trio worker, where the runtime
lives in the server's own trio run, and under uvicorn, where it lives in a thread behind the bridge. The peers run
under uvicorn on the same Redis. Shares are of the same server without the middleware. Last, the server's memory is
looked at while a gigabyte is streamed through a protected route.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the servers of the tests

from benchmarks.peers.environments import NotInstalled, python_with  # noqa: E402

from support.servers import standalone  # noqa: E402

HERE = ROOT / "benchmarks"
PEERS = ["asgi-idempotency-header==0.2.0", "idemptx==0.2.2", "fastapi", "uvicorn", "redis>=4.6,<5"]
PEER_NAMES = ("asgi-idempotency-header", "idemptx")
CONNECTIONS = 32
NEW_KEYS, ONE_KEY = "new keys", "replays"
_WRK = """
local count = 0
local process = {process!r}
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Tenant-ID"] = "bench"
wrk.body = '{{"item": "book", "count": 3}}'
request = function()
  {next}
  wrk.headers["Idempotency-Key"] = '"' .. process .. "-" .. count .. '"'
  return wrk.format(nil, "/orders")
end
"""


@dataclass(frozen=True)
class Figures:
    """What wrk saw."""

    rate: float
    p99_ms: float
    failed: int


@contextmanager
def serving(server: str, mode: str, redis: str, python: str = sys.executable) -> Iterator[tuple[int, int]]:
    """The port and the process of a server with the app in this mode."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    command = {
        "hypercorn trio": [
            "-m",
            "hypercorn",
            "--worker-class",
            "trio",
            "--workers",
            "0",
            "--bind",
            f"127.0.0.1:{port}",
            "http_app:app",
        ],
        "uvicorn": ["-m", "uvicorn", "--port", str(port), "--no-access-log", "--log-level", "warning", "http_app:app"],
    }[server]
    environment = os.environ | {"BENCH_MODE": mode, "BENCH_REDIS": redis, "PYTHONPATH": str(HERE)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([python, *command], env=environment, cwd=HERE, stdout=log, stderr=log)
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            else:
                log.seek(0)
                raise RuntimeError(f"{server} did not start:\n{log.read().decode()}")
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(30)


def load(port: int, keys: str, seconds: float, connections: int) -> Figures:
    """Put the server under load."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        advance = "count = count + 1" if keys == NEW_KEYS else ""
        script.write(_WRK.format(process=f"{time.time_ns()}", next=advance))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", script.name]
        done = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    if rate is None or p99 is None:
        raise RuntimeError(done.stdout)
    in_ms = {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]]
    return Figures(float(rate[1]), float(p99[1]) * in_ms, int(failed[1]) if failed else 0)


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def stream_gibibyte(port: int, pid: int) -> tuple[float, float, str]:
    """Sends a request with a body of 1 GiB under a key; resident memory before it, at most, and the answer's line."""
    before = highest = memory_mib(pid)
    chunk, count = b"x" * 1_048_576, 1024
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        head = (
            "POST /orders HTTP/1.1\r\nHost: bench\r\nContent-Type: application/octet-stream\r\nX-Tenant-ID: bench\r\n"
            f'Idempotency-Key: "gib-{time.time_ns()}"\r\nContent-Length: {len(chunk) * count}\r\n\r\n'
        )
        connection.sendall(head.encode())
        for number in range(count):
            connection.sendall(chunk)
            if number % 16 == 0:
                highest = max(highest, memory_mib(pid))
        answer = connection.recv(200).decode(errors="replace").partition("\r\n")[0]
    return before, max(highest, memory_mib(pid)), answer


@dataclass(frozen=True)
class Row:
    """One app under one server, beside the same server without the middleware."""

    server: str
    what: str
    figures: Figures
    base: float


def under_load(server: str, mode: str, redis: str, seconds: float, connections: int) -> Iterator[tuple[str, Figures]]:
    """Requests under new keys, then replays of one."""
    python = str(python_with("http-peers", PEERS)) if mode in PEER_NAMES else sys.executable
    with serving(server, mode, redis, python) as (port, _):
        load(port, NEW_KEYS, 1, connections)
        for keys in (NEW_KEYS, ONE_KEY):
            yield keys, load(port, keys, seconds, connections)


def results(seconds: float, connections: int = CONNECTIONS) -> Iterator[Row]:
    """Every app under every server. Raises `NotInstalled` without wrk, or when the peers cannot be had."""
    if shutil.which("wrk") is None:
        raise NotInstalled("there is no wrk (Debian package wrk)")
    with standalone("appendonly yes", "appendfsync everysec") as redis:
        base = 0.0
        for server in ("hypercorn trio", "uvicorn"):
            with serving(server, "plain", "") as (port, _):
                load(port, ONE_KEY, 1, connections)
                plain = load(port, ONE_KEY, seconds, connections)
            base = plain.rate
            yield Row(server, "without the middleware", plain, base)
            for mode in ("memory", "redis"):
                for keys, figures in under_load(server, mode, redis.url, seconds, connections):
                    yield Row(server, f"{mode}, {keys}", figures, base)
        for peer in PEER_NAMES:
            for keys, figures in under_load("uvicorn", peer, redis.url, seconds, connections):
                yield Row("uvicorn", f"{peer}, redis, {keys}", figures, base)


def streamed() -> str:
    """What memory does while a gibibyte goes through a protected route."""
    with (
        standalone("appendonly yes", "appendfsync everysec") as redis,
        serving("hypercorn trio", "redis-large", redis.url) as (port, pid),
    ):
        before, highest, answer = stream_gibibyte(port, pid)
    return f"{before:.0f} MiB before, {highest:.0f} MiB at most; {answer}"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    connections = int(sys.argv[2]) if len(sys.argv) > 2 else CONNECTIONS
    print(f"{connections} connections, {seconds:g} s each, Python {sys.version.split()[0]}, one server process")
    print(f"{'server':15} {'app':38} {'requests':>10} {'p99':>11} {'of plain':>8}")
    for row in results(seconds, connections):
        seen = row.figures
        failed = f"  {seen.failed} refused" if seen.failed else ""
        share = seen.rate / row.base
        print(f"{row.server:15} {row.what:38} {seen.rate:8,.0f}/s {seen.p99_ms:8.1f} ms {share:6.0%}{failed}")
    print(f"1 GiB through a protected route: {streamed()}")


if __name__ == "__main__":
    main()
