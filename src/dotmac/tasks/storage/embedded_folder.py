"""The folder of an embedded server: where its files are, who may use it, and what its log says last.

It exists so that every rule on which two processes must agree is in one place: the names of the lock files, the
meaning of holding each, and the path by which the socket is reached. Locks are `flock`s: they belong to an open
file, the kernel drops them when the holder ends however it ends, and a lock file left behind means nothing. The
files are never deleted from here, because a lock on a deleted file excludes nobody.

- the folder itself: exclusive as long as a keeper or a server lives; whoever gets it starts them. It is no file in the
  folder, because two servers on the same data would ruin it, and people and cleaners of /tmp do delete lock files.
- `users.lock`: shared by every user, exclusive for a keeper that found no user left (see `embedded_keeper`).
- `door.lock`: exclusive for a moment while a leaving user looks whether others are left, so that two who leave
  at once do not take each other's look for a user.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote

from dotmac.tasks.errors import InvalidInput, StorageMisconfigured
from dotmac.tasks.jsonvalue import is_text
from dotmac.tasks.storage import embedded_keeper

SOCKET_PATH_BYTES = 100  # sockaddr_un holds 104 bytes on macOS, 108 on Linux
_LINK_LENGTH = 16
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 4096
DISK_RESERVE = 65_536  # with less than that, a server cannot even write its log
_DATA = "appendonlydir"
_FIRST_BASE = "appendonly.aof.1.base.rdb"  # is there before the manifest, when a server starts for the first time


def absolute(path: str | Path) -> Path:
    """Where the folder is, whatever becomes of the working directory: absolute, without links, ``~`` replaced.

    Raises:
        InvalidInput: It can be no path.
    """
    try:
        return Path(os.path.realpath(Path(path).expanduser()))
    except (ValueError, RuntimeError) as error:  # a null character; a user who has no home directory
        raise InvalidInput("path", f"{str(path)!r:.80} cannot be a folder: {error}") from error


class FolderLock:
    """A lock held on one file. It lives as long as this object is unreleased, or the process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def attempt(cls, path: Path, *, shared: bool = False) -> Self | None:
        """Take the lock of a file, or of a folder, if it can be had now; None if somebody's lock is in the way.

        Raises:
            OSError: If it cannot be opened or its file system has no locks.
        """
        how = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
        fd = os.open(path, how | os.O_CLOEXEC, 0o600)
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
    """Paths and locks of one data folder.

    Every method raises StorageMisconfigured where the folder cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = absolute(path)
        self._users = self.path / embedded_keeper.USERS_LOCK_NAME
        self._door = self.path / "door.lock"
        self._log = self.path / embedded_keeper.LOG_NAME

    def create(self) -> None:
        """Make the folder, private to this user, unless it exists; check that it can be used.

        Raises:
            StorageMisconfigured: If it cannot be made or written. Nothing was changed in an existing folder.
        """
        with self._usable():
            if not self.path.is_dir():
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for lock in (self._users, self._door):
                os.close(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """Whatever goes wrong with the folder inside of this, the error names it."""
        try:
            yield
        except OSError as error:
            message = f"the data folder {self.path} cannot be used: {error}; give a folder that this user can write"
            raise StorageMisconfigured(message) from error

    def check_in_place(self, users: FolderLock) -> None:
        """Refuse to go on where this is not the folder any more in which `users` was taken.

        Raises:
            StorageMisconfigured: It was removed, moved or replaced: the server writes into files that nobody will find.
        """
        try:
            if os.path.samestat(os.stat(self._users), os.fstat(users.fd)):  # noqa: PTH116 - beside fstat
                return
        except OSError:
            pass  # it is not there, which is what is told below
        message = (
            f"the data folder {self.path}, or {self._users.name} in it, was removed, moved or replaced while in use; "
            "what is stored meanwhile may be lost: stop all who use it, put the folder back, and start them again"
        )
        raise StorageMisconfigured(message)

    def check_data(self) -> None:
        """Refuse data of which the manifest is missing: a server would take it for none, and overwrite it.

        Raises:
            StorageMisconfigured: The manifest is not there, but files that only a manifest makes sense of are.
        """
        with self._usable():
            data = self.path / _DATA
            if not data.is_dir() or any(data.glob("*.manifest")):
                return
            orphans = [found.name for found in data.glob("appendonly.aof.*") if found.stat().st_size]
            if set(orphans) <= {_FIRST_BASE}:
                return  # as of a server that was killed in its very first moment
        message = f"{data} holds {', '.join(sorted(orphans))}, but no appendonly.aof.manifest, without which a server"
        raise StorageMisconfigured(f"{message} would begin anew and overwrite them; put it back, or move them away")

    def socket(self) -> Path:
        """The path by which this user's processes reach the server's socket, which always lies in the folder.

        Where the folder's own path is too long for a socket address, it goes through a short link in a private
        directory. The link follows from the folder alone and leads to the folder, so processes need no agreement
        on it, and one that was cleaned away is simply made again.

        A path whose bytes are no text goes through the link too: a URL could not carry it.

        Raises:
            StorageMisconfigured: If the directory for the link belongs to somebody else.
        """
        direct = self.path / embedded_keeper.SOCKET_NAME
        if len(os.fsencode(direct)) <= SOCKET_PATH_BYTES and is_text(str(direct)):
            return direct
        with self._usable():
            return self._by_link(direct)

    def _by_link(self, direct: Path) -> Path:
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
        with self._usable():
            return FolderLock.attempt(self._users, shared=True)

    def claim_keeper(self) -> FolderLock | None:
        """The right and duty to start the server; None if a keeper or a server lives, or another claims it."""
        with self._usable():
            return self._folder_lock()

    def is_kept(self) -> bool:
        """Whether a keeper or a server lives (or one is being started)."""
        with self._usable():
            probe = self._folder_lock(shared=True)
        if probe is None:
            return True
        probe.release()
        return False

    def _folder_lock(self, *, shared: bool = False) -> FolderLock | None:
        if not self.path.is_dir():  # a file could be locked as well, and would say nothing of a server
            raise NotADirectoryError(errno.ENOTDIR, "it is no directory any more", str(self.path))
        return FolderLock.attempt(self.path, shared=shared)

    def has_users(self) -> bool | None:
        """Whether anybody uses the server; None if somebody else is looking just now: look again."""
        with self._usable():
            return self._look_for_users()

    def _look_for_users(self) -> bool | None:
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
        with self._usable():
            return os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def is_full(self) -> bool:
        """Whether no space is left on the folder's disk."""
        with self._usable():
            disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize < DISK_RESERVE

    def told(self) -> str:
        """What is known of why the server does not do what it shall, for an error's message."""
        if self.is_full():  # nor is there any for its log, so that says nothing
            return f"no space is left on the disk of {self.path}: free some; {self._log_tail()}"
        return self._log_tail()

    def _log_tail(self) -> str:
        if not self._log.is_file():
            return "the server wrote no log"
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return f"the end of {self._log}:\n" + "\n".join(lines[-LOG_TAIL_LINES:])
