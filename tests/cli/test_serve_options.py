"""`serve` and `worker`, called wrongly: one line that names what is wrong, exit code 2, and nothing was started."""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner, Result

from dotmac.tasks.commands import app
from dotmac.tasks.service import process
from service.house import OPERATOR

SOURCE = """
from functools import partial

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage
from dotmac.tasks.storage.redis import RedisStorage

manager = BackgroundOperationsManager(MemoryStorage())

idle = BackgroundOperationsManager(RedisStorage("redis://127.0.0.1:1"), works=False)
busy = BackgroundOperationsManager(RedisStorage("redis://127.0.0.1:1"))

def sync_auth(connection):
    return None

async def auth(connection):
    return None

class Auth:
    async def __call__(self, connection):
        return None

    async def method(self, connection):
        return None

auths = Auth()
part = partial(auth)
number = 5
"""


@pytest.fixture(autouse=True)
def _application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "told_shop.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "told_shop", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("TOLD_TOKENS", f"operate otto {OPERATOR}")


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was started: each process is over at once."""
    fronts: list[Any] = []

    async def run(_manager: Any, front: Any = None) -> int:
        fronts.append(front)
        return 0

    monkeypatch.setattr(process, "run_process", run)
    return fronts


def serve(*options: str, application: str = "told_shop:busy") -> Result:
    return CliRunner().invoke(app, ["serve", application, *options])


def refused(result: Result, told: str, code: int = 2) -> None:
    assert result.exit_code == code, (result.output, result.exception)
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    now = datetime.now(UTC)
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder(
        name, name, secret.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1)
    ).sign(secret, hashes.SHA256())
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return cert, key


def test_half_a_pair_is_not_taken_for_plain_http(pair: tuple[Path, Path], begun: list[Any]) -> None:
    cert, key = map(str, pair)
    refused(serve("--certfile", cert), "--certfile: needs --keyfile too")
    refused(serve("--keyfile", key), "--keyfile: needs --certfile too")
    assert not begun


def test_files_that_are_no_certificate_and_key_are_named(pair: tuple[Path, Path], begun: list[Any]) -> None:
    cert, key = map(str, pair)
    refused(serve("--certfile", "nothing.pem", "--keyfile", key), "--certfile: nothing.pem: No such file")
    refused(serve("--certfile", cert, "--keyfile", "nothing.pem"), "--keyfile: nothing.pem: No such file")
    refused(serve("--certfile", cert, "--keyfile", cert), f"{cert} and {cert} are not a certificate chain and its key")
    Path("text.pem").write_text("no PEM\n")
    refused(serve("--certfile", "text.pem", "--keyfile", key), f"text.pem and {key} are not a certificate")
    assert not begun


def test_a_pair_is_served_with(pair: tuple[Path, Path], begun: list[Any]) -> None:
    cert, key = map(str, pair)
    assert serve("--certfile", cert, "--keyfile", key).exit_code == 0
    assert (begun[0].certfile, begun[0].keyfile) == (cert, key)
    assert begun[0].config().ssl_enabled


# --- who comes in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sync_auth", "Auth"])
def test_who_says_who_comes_in_must_be_async(name: str, begun: list[Any]) -> None:
    refused(serve("--auth", f"told_shop:{name}"), f"told_shop:{name}: is not async")
    refused(serve("--auth", "told_shop:number"), "told_shop:number: is a int; it must be an async callable")
    assert not begun


@pytest.mark.parametrize("name", ["auth", "auths", "auths.method", "part"])
def test_anything_async_can_say_who_comes_in(name: str, begun: list[Any]) -> None:
    assert serve("--auth", f"told_shop:{name}").exit_code == 0
    assert begun


# --- where it listens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bind",
    ["foo", "", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:²", "[::1]", "::1:8080", "[]:80",
     "unix:", "fd://3", "http://127.0.0.1:80", "127.0.0.1:-1", "127.0.0.1:100000"],
)  # fmt: skip
def test_what_is_no_address_is_told_as_such(bind: str, begun: list[Any]) -> None:
    refused(serve("--bind", bind), f"--bind: {bind!r} is no HOST:PORT, [IPv6]:PORT or unix:PATH")
    assert not begun


def test_there_is_no_such_port(begun: list[Any]) -> None:
    refused(serve("--bind", "127.0.0.1:99999"), "--bind: '127.0.0.1:99999' has no port from 0 to 65535")
    assert not begun


def test_an_address_that_is_not_to_be_had_now_is_named(begun: list[Any]) -> None:
    """With the code after which supervisors try again: it may be free, or there, a moment later."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = f"--bind: cannot listen on {address!r}: Address already in use"
        refused(serve("--bind", "127.0.0.1:0", "--bind", address), told, code=1)
    refused(serve("--bind", address, "--bind", address), told, code=1)
    foreign = serve("--bind", "192.0.2.1:0", "--token-env", "TOLD_TOKENS")
    refused(foreign, "--bind: cannot listen on '192.0.2.1:0': ", code=1)
    assert not begun


def test_a_path_where_no_socket_can_be_is_named(tmp_path: Path, begun: list[Any]) -> None:
    (tmp_path / "file").write_text("kept")
    for path in ("/nonexistent/sock", str(tmp_path / "file"), str(tmp_path / ("x" * 120))):
        refused(serve("--bind", f"unix:{path}"), f"--bind: cannot listen on 'unix:{path}': ")
    assert not begun
    assert (tmp_path / "file").read_text() == "kept"


def test_a_name_that_can_be_none_is_told(begun: list[Any]) -> None:
    refused(serve("--bind", "ü..example:0", "--token-env", "TOLD_TOKENS"), "--bind: cannot listen on 'ü..example:0': ")
    assert not begun


def test_what_was_tried_is_free_again_and_a_socket_that_is_there_stays(tmp_path: Path, begun: list[Any]) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as other, socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        assert serve("--bind", address, "--bind", f"unix:{path}").exit_code == 0
        assert not path.exists()
        other.bind(str(path))
        assert serve("--bind", address, "--bind", f"unix:{path}").exit_code == 0
        assert path.is_socket()
    assert [front.binds for front in begun] == [[address, f"unix:{path}"]] * 2


# --- what it runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["serve", "worker"])
@pytest.mark.parametrize("name", ["auth", "sync_auth", "number"])
def test_what_is_no_manager_and_makes_none_is_told(command: str, name: str, begun: list[Any]) -> None:
    result = CliRunner().invoke(app, [command, f"told_shop:{name}"])
    refused(result, f"told_shop:{name}: ")
    assert "it must be a BackgroundOperationsManager" in result.stderr
    assert not begun


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_an_empty_url_is_refused_before_memory_takes_its_place(command: str, begun: list[Any]) -> None:
    refused(CliRunner().invoke(app, [command, "told_shop:manager", "--redis", ""]), "--redis: is empty; give redis://")
    assert not begun


# --- for whom it works ------------------------------------------------------------------------------------------------


def test_a_worker_to_which_nobody_can_give_work_is_refused(begun: list[Any]) -> None:
    refused(CliRunner().invoke(app, ["worker", "told_shop:manager"]), "told_shop:manager: keeps everything in memory")
    refused(CliRunner().invoke(app, ["worker", "told_shop:idle"]), "told_shop:idle: was made with works=False")
    assert not begun
    assert CliRunner().invoke(app, ["worker", "told_shop:busy"]).exit_code == 0
    assert begun == [None]


def test_a_service_that_forgets_everything_says_so(begun: list[Any]) -> None:
    for name, forgets in (("manager", True), ("busy", False), ("idle", False)):
        served = serve("--bind", "127.0.0.1:0", application=f"told_shop:{name}")
        assert served.exit_code == 0
        told = "WARNING  everything is in memory and ends with this process; set REDIS_URL, or give --redis"
        assert (told in served.stderr) is forgets, name
    assert len(begun) == 3


def test_a_service_without_work_needs_a_storage_that_workers_share(begun: list[Any]) -> None:
    refused(CliRunner().invoke(app, ["serve", "told_shop:manager", "--no-work"]), "--no-work: no worker can share")
    assert not begun
