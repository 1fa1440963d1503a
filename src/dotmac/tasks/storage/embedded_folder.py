"""The folder of an embedded server: where its files are, who may use it, and what its log says last.

It exists so that every rule on which two processes must agree is in one place: the names of the lock files, the
meaning of holding each, and the path by which the socket is reached. Locks are `flock`s: they belong to an open
file, the kernel drops them when the holder ends however it ends, and a lock file left behind means nothing. The
files are never deleted, because a lock on a deleted file excludes nobody.

- `users.lock`: shared by every user, exclusive for a keeper that found no user left (see `embedded_keeper`).
- `keeper.lock`: exclusive as long as a keeper or a server lives; whoever gets it starts them.
- `door.lock`: exclusive for a moment while a leaving user looks whether others are left, so that two who leave
  at once do not take each other's look for a user.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Self
from urllib.parse import quote

from dotmac.tasks.errors import StorageMisconfigured
from dotmac.tasks.storage import embedded_keeper

SOCKET_PATH_BYTES = 100  # sockaddr_un holds 104 bytes on macOS, 108 on Linux
_LINK_LENGTH = 16
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 4096


class FolderLock:
    """A lock held on one file. It lives as long as this object is unreleased, or the process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def attempt(cls, path: Path, *, shared: bool = False) -> Self | None:
        """Take the lock if it can be had now; None if somebody's lock is in the way.

        Raises:
            OSError: If the file cannot be opened or its file system has no locks.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        return cls(fd)

    def release(self) -> None:
        """Close the file. The lock ends unless another process inherited it."""
        os.close(self.fd)


class ServerFolder:
    """Paths and locks of one data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self._users = self.path / embedded_keeper.USERS_LOCK_NAME
        self._keeper = self.path / "keeper.lock"
        self._door = self.path / "door.lock"
        self._log = self.path / embedded_keeper.LOG_NAME

    def create(self) -> None:
        """Make the folder, private to this user, unless it exists; check that it can be used.

        Raises:
            StorageMisconfigured: If it cannot be made or written. Nothing was changed in an existing folder.
        """
        try:
            if not self.path.is_dir():
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for lock in (self._users, self._keeper, self._door):
                os.close(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            message = f"the data folder {self.path} cannot be used: {error}; give a folder that this user can write"
            raise StorageMisconfigured(message) from error

    def socket(self) -> Path:
        """The path by which this user's processes reach the server's socket, which always lies in the folder.

        Where the folder's own path is too long for a socket address, it goes through a short link in a private
        directory. The link follows from the folder alone and leads to the folder, so processes need no agreement
        on it, and one that was cleaned away is simply made again.

        Raises:
            StorageMisconfigured: If the directory for the link belongs to somebody else.
        """
        direct = self.path / embedded_keeper.SOCKET_NAME
        if len(os.fsencode(direct)) <= SOCKET_PATH_BYTES:
            return direct
        links = self._links()
        links.mkdir(mode=0o700, exist_ok=True)
        found = links.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            message = f"{links} is not a private directory of this user; remove it, or use a shorter path than {direct}"
            raise StorageMisconfigured(message)
        link = links / hashlib.sha256(os.fsencode(self.path)).hexdigest()[:_LINK_LENGTH]
        if not link.is_symlink() or link.readlink() != self.path:
            fresh = links / f"{link.name}.{os.getpid()}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.path)
            fresh.replace(link)  # atomic: others see the old link or the new one
        return link / embedded_keeper.SOCKET_NAME

    @staticmethod
    def _links() -> Path:
        """The directory of the links. Processes may differ in it without harm: every link leads to the folder."""
        links = Path(tempfile.gettempdir()) / f"dotmac-tasks-{os.geteuid()}"
        if len(os.fsencode(links)) + 2 + _LINK_LENGTH + len(embedded_keeper.SOCKET_NAME) <= SOCKET_PATH_BYTES:
            return links
        return Path("/tmp") / links.name  # noqa: S108 - private to this user, which the caller checks

    def url(self) -> str:
        """The address of the running server for a Redis client on this machine."""
        return f"unix://{quote(str(self.socket()))}?db=0"

    def enter(self) -> FolderLock | None:
        """Become a user; None while a server that had no users is being stopped (or a leaving user looks)."""
        return FolderLock.attempt(self._users, shared=True)

    def claim_keeper(self) -> FolderLock | None:
        """The right and duty to start the server; None if a keeper or a server lives, or another claims it."""
        return FolderLock.attempt(self._keeper)

    def is_kept(self) -> bool:
        """Whether a keeper or a server lives (or one is being started)."""
        probe = FolderLock.attempt(self._keeper, shared=True)
        if probe is None:
            return True
        probe.release()
        return False

    def has_users(self) -> bool | None:
        """Whether anybody uses the server; None if somebody else is looking just now: look again."""
        door = FolderLock.attempt(self._door)
        if door is None:
            return None
        try:
            alone = FolderLock.attempt(self._users)
            if alone is not None:
                alone.release()
                return False
            beside = FolderLock.attempt(self._users, shared=True)
            if beside is not None:
                beside.release()
                return True
            return False  # the keeper has it for itself: it found nobody left
        finally:
            door.release()

    def open_log(self) -> int:
        """A file descriptor that appends to the server's log, for the output of processes."""
        return os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def log_tail(self) -> str:
        """The last lines of the server's log, for an error's message."""
        if not self._log.exists():
            return "the server wrote no log"
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return f"the end of {self._log}:\n" + "\n".join(lines[-LOG_TAIL_LINES:])
