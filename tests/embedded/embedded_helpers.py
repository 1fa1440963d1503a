"""How tests of the embedded server look at it from outside: its processes, its data, other users."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dotmac.tasks.storage.embedded_folder import ServerFolder
from support.processes import processes_in, spawn, wait_until
from support.servers import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = Path(__file__).with_name("embedded_user.py")


def query(folder: Path, *command: str) -> Any:
    """One command to the folder's server."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(ServerFolder(folder).socket()))
        return ask(connection, *command)


def keepers(folder: Path) -> list[int]:
    """Keeper and waiter, by age."""
    return sorted(pid for pid, command in processes_in(folder).items() if "embedded_keeper" in command)


def servers(folder: Path) -> list[int]:
    """The server processes. What has no command line any more is about to be gone, whatever it was."""
    return [pid for pid, command in processes_in(folder).items() if command and "embedded_keeper" not in command]


def wait_gone(folder: Path) -> None:
    """Wait until neither server nor keeper lives."""
    wait_until(lambda: not processes_in(folder), what="the server and its keeper end")


def assert_stopped(folder: Path) -> None:
    """No server lives; its keeper, which has let go of its locks, is through with ending or about to be."""
    assert not servers(folder)
    wait_gone(folder)


class User:
    """Another process that uses the folder."""

    def __init__(self, folder: Path) -> None:
        self.process = spawn([sys.executable, USER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def wait_ready(self) -> User:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def ask_to_leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def leave(self) -> None:
        output, _ = self.process.communicate(timeout=60)
        assert output == b"left\n"
        assert self.process.returncode == 0

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


@contextmanager
def user(folder: Path) -> Iterator[User]:
    """A user that is there; killed at the end if it has not left."""
    made = User(folder)
    try:
        yield made.wait_ready()
    finally:
        made.kill()
