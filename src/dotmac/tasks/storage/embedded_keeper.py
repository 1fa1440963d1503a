"""The keeper: a process of its own that runs one folder's server for as long as the folder has users.

It exists because no user can be trusted to stop the server: the one that started it may be killed, or may leave
first. The keeper trusts only what the kernel guarantees. Every user holds a shared `flock` on `users.lock`; the
kernel drops it however the user ends. A child of the keeper (the waiter) blocks on the exclusive lock of the same
open file, so when the waiter ends, the keeper itself holds that lock: nobody uses the server, and nobody can begin
to until the keeper has stopped it and gone. The server is a child too, so the keeper is one `os.wait()` loop with
no thread and no polling.

The lock of the folder itself arrives from the user that started this process, and the server inherits it: it is free
when neither keeper nor server lives, and a second server on the same folder is impossible. Should the keeper be killed,
the kernel asks the server to stop (Linux: parent-death signal); nothing is lost and no orphan stays.

This file runs as a script with the standard library alone (`python -I -S`): it starts in a few milliseconds, and
neither the environment nor the working directory can change what it imports.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

LOG_NAME = "server.log"
SOCKET_NAME = "server.sock"
USERS_LOCK_NAME = "users.lock"
LOG_BYTES = 1_000_000  # two files of about this size are kept
LOG_CHECK_SECONDS = 60.0
STOP_SECONDS = 10.0  # after that a server that does not stop (a full disk, say) is killed: its AOF is what it is
BACKOFF_SECONDS = (0.05, 0.2, 0.5, 1.0, 2.0)
LINUX_PR_SET_PDEATHSIG = 1


def server_arguments(binary: str, fsync: str) -> list[str]:
    """The server's command line. Its paths are relative to the folder, so no path needs quoting or is too long."""
    options = {
        "port": "0",
        "unixsocket": SOCKET_NAME,
        "unixsocketperm": "700",
        "dir": ".",
        "logfile": LOG_NAME,
        "appendonly": "yes",
        "appendfsync": fsync,
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "supervised": "no",
    }
    return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]


def fork_child(*, dies_by: signal.Signals) -> int:
    """Fork; the child has no handler of ours for SIGTERM, and gets `dies_by` from the kernel when we end (Linux).

    SIGTERM waits meanwhile: a child that ran our handler would go on and become a server that nobody stops.
    """
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(LINUX_PR_SET_PDEATHSIG, int(dies_by), 0, 0, 0)
        if os.getppid() != parent:  # it ended before the kernel knew
            os._exit(1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return pid


class Keeper:
    """Runs one server until the last user is gone. Its working directory is the data folder."""

    def __init__(self, *, binary: str, fsync: str, keeper_lock: int) -> None:
        self._arguments = server_arguments(binary, fsync)
        self._keeper_lock = keeper_lock
        self._users_lock = os.open(USERS_LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._server: int | None = None
        self._stopping = False

    def run(self) -> int:
        """Keep the server; return the exit code once no server is left and none is wanted."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGALRM, self._on_alarm)
        rotate_log()
        signal.setitimer(signal.ITIMER_REAL, LOG_CHECK_SECONDS, LOG_CHECK_SECONDS)
        self._start_server()
        waiter = self._start_waiter()
        starts = 1
        while self._server is not None:
            pid, status = os.wait()
            if pid == waiter:
                if status == 0:
                    self._stop_server()
                else:  # somebody killed it; the lock is not ours
                    waiter = self._start_waiter()
            elif pid == self._server:
                self._server = None
                if self._stopping:
                    return 0
                if starts == 1 and os.waitstatus_to_exitcode(status) > 0:
                    return 1  # it refused the folder or its configuration; its log says why
                time.sleep(BACKOFF_SECONDS[min(starts, len(BACKOFF_SECONDS)) - 1])
                if not self._stopping:
                    self._start_server()
                starts += 1
        return 0

    def _start_server(self) -> None:
        pid = fork_child(dies_by=signal.SIGTERM)
        if pid:
            self._server = pid
            if self._stopping:  # the signal came before we knew whom to stop
                self._stop_server()
            return
        try:
            # An LC_ALL that this host does not know would stop the server from starting.
            os.execve(self._arguments[0], self._arguments, {**os.environ, "LC_ALL": "C"})  # noqa: S606 - no shell wanted
        except BaseException:
            traceback.print_exc()  # into the log
        finally:
            os._exit(127)

    def _start_waiter(self) -> int:
        """Fork the process that ends, with status 0, when the exclusive lock on `users.lock` is ours."""
        pid = fork_child(dies_by=signal.SIGKILL)
        if pid:
            return pid
        try:
            os.close(self._keeper_lock)
            fcntl.flock(self._users_lock, fcntl.LOCK_EX)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _stop_server(self) -> None:
        self._stopping = True
        if self._server is not None:
            os.kill(self._server, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)

    def _on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_server()

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        if not self._stopping:
            rotate_log()
        elif self._server is not None:
            os.kill(self._server, signal.SIGKILL)


def rotate_log() -> None:
    """Put a log that has grown too large aside. The server opens its log anew for each line."""
    log = Path(LOG_NAME)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(f"{LOG_NAME}.1")


def main() -> None:
    """Detach from the user that started us, so that neither its terminal nor its end reaches us, and keep."""
    keeper_lock, binary, fsync = sys.argv[1:]
    if os.fork():
        os._exit(0)  # the starter waits for this one only: no zombie is left to it
    os.setsid()
    os.umask(0o077)
    sys.exit(Keeper(binary=binary, fsync=fsync, keeper_lock=int(keeper_lock)).run())


if __name__ == "__main__":
    main()
