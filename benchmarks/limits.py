"""What this machine can do at most: its disk, the server, and one question to the server after the other.

- *fsync*: how often a second a few bytes can be written and forced to disk, in the folder where the servers write.
- *server*: how often a second it carries out the skeleton's script, by redis-benchmark or valkey-benchmark where one
  is installed: one question after the other, a hundred connections, and one connection with a hundred in flight.
- *round trip*: how long that script takes on a blocking socket, with nothing of Python's around it but the socket.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the skeleton next to this, and the servers of the tests

from benchmarks.skeleton import COMMIT  # noqa: E402

from support.servers import Server, ask, server_folder, standalone  # noqa: E402

SECONDS = 2.0
RECORD = b"x" * 300  # about what a commit writes
TOOLS = ("valkey-benchmark", "redis-benchmark")
REQUESTS = {"one after the other": ("-c 1 -P 1", 3_000), "100 connections": ("-c 100 -P 1", 30_000),
            "one connection, 100 in flight": ("-c 1 -P 100", 100_000)}  # fmt: skip
SETTINGS = ("appendfsync always", "appendfsync everysec")
ROUND_TRIPS = 2_000
EVENT = '{"kind":"step_completed","step":1,"at":1.5,"result":{"done":true}}'


@dataclass(frozen=True)
class Limit:
    """So much can be had: per second, and milliseconds of one."""

    what: str
    setting: str
    per_second: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    missing: str = ""


def disk() -> Limit:
    """Writes that are forced to disk, one after the other."""
    took = list[float]()
    with server_folder() as folder, (folder / "file").open("ab", buffering=0) as file:
        ends = time.perf_counter() + SECONDS
        while (begin := time.perf_counter()) < ends:
            file.write(RECORD)
            os.fdatasync(file.fileno())  # as the servers do
            took.append(time.perf_counter() - begin)
    return _limit("write and fdatasync", "the disk alone", took)


def round_trips(server: Server, setting: str) -> Limit:
    """The skeleton's commit on a blocking socket."""
    took = list[float]()
    with socket.create_connection((server.host, server.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sha = ask(connection, "SCRIPT", "LOAD", COMMIT)
        for number in range(ROUND_TRIPS):
            begin = time.perf_counter()
            ask(connection, *_commit(sha, str(number)))
            took.append(time.perf_counter() - begin)
    return _limit("round trip of the script", setting, took)


def _limit(what: str, setting: str, took: list[float]) -> Limit:
    cuts = [1000 * cut for cut in statistics.quantiles(took, n=100)]
    return Limit(what, setting, len(took) / sum(took), cuts[49], cuts[98])


def _commit(sha: str, name: str) -> list[str]:
    keys = [f"skeleton:s:{name}", f"skeleton:j:{name}", "skeleton:due"]
    return ["EVALSHA", sha, str(len(keys)), *keys, "1", "1", "running", EVENT, "1", name]


def by_tool(server: Server, setting: str) -> Iterator[Limit]:
    """The skeleton's commit, asked by the server's own benchmark."""
    found = [path for tool in TOOLS if (path := shutil.which(tool))]
    if not found:
        yield Limit("the script", setting, 0.0, missing=f"none of {' and '.join(TOOLS)} is installed")
        return
    sha = server.cli("SCRIPT", "LOAD", COMMIT)
    for how, (options, requests) in REQUESTS.items():
        base = [found[0], "-h", server.host, "-p", str(server.port), "-n", str(requests), "-r", "1000000", "--csv"]
        ended = subprocess.run(
            [*base, *options.split(), *_commit(sha, "__rand_int__")], check=True, capture_output=True, text=True
        )
        # The command stands before the figures, with quotes of its own that are not escaped.
        rate, _average, _least, p50, _p95, p99, _most = ended.stdout.strip().strip('"').split('","')[-7:]
        yield Limit(f"{Path(found[0]).name}, {how}", setting, float(rate), float(p50), float(p99))


def results() -> Iterator[Limit]:
    """All of them."""
    yield disk()
    for setting in SETTINGS:
        with standalone(setting, aof=True) as server:
            yield round_trips(server, setting)
            yield from by_tool(server, setting)


def main() -> None:
    print(f"{'':50}{'':22}{'per second':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for row in results():
        times = "".join(f"{each:9.2f}" for each in (row.p50_ms, row.p99_ms) if each is not None)
        print(f"{row.what:50}{row.setting:22}{row.missing or f'{row.per_second:12,.0f}{times}'}")


if __name__ == "__main__":
    main()
