"""Processes, ports and deadlines of tests.

It exists so that no test sleeps to wait, no two tests take the same port for long, and nothing that a test started
outlives pytest, not even a pytest that was killed.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DIE_WITH_PARENT = str(Path(__file__).with_name("die_with_parent.py"))
Result = TypeVar("Result")

POLL_SECONDS = 0.01
BUS_OFFSET = 10_000
# Below the range from which Linux takes ports of outgoing connections, also with the cluster bus's offset.
PORTS = range(11_000, 21_000)

# The kernel's parent-death signal follows the *thread* that forked. Threads of trio or of a test end early; this
# one lives as long as the process.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")


def spawn(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    """`subprocess.Popen` of a command that is killed when this process ends, however that is."""
    guarded = [sys.executable, "-I", "-S", DIE_WITH_PARENT, str(os.getpid()), *map(str, command)]
    return _spawner.submit(lambda: subprocess.Popen(guarded, **options)).result()


def wait_until(condition: Callable[[], Result], *, seconds: float = 20.0, what: str = "") -> Result:
    """Poll until `condition` returns something true, and return that; `TimeoutError` after the deadline."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            message = f"not within {seconds} s: {what or condition}"
            raise TimeoutError(message)
        time.sleep(POLL_SECONDS)
    return result


def is_alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # it ended before the open, or between open and read
        return False


def processes_in(folder: Path) -> dict[int, str]:
    """Processes whose working directory is `folder`, with their command lines: a server, its keeper, and so on."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "cwd").readlink() == folder and is_alive(int(entry.name)):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended meanwhile
    return found


def port_candidates(*, bus: bool = False) -> Iterator[int]:
    """Loopback ports that are free right now. Another process may be faster: try the next one if binding fails."""
    start = random.choice(PORTS)
    for port in itertools.chain(range(start, PORTS.stop), range(PORTS.start, start)):
        if _is_free(port) and (not bus or _is_free(port + BUS_OFFSET)):
            yield port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
