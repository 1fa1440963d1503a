"""The folder of an embedded server as people treat it: odd names, taken away while in use, lock files deleted."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import trio
from embedded_helpers import assert_stopped, keepers, query, servers, user, wait_gone

from dotmac.tasks.errors import InvalidInput, StorageMisconfigured
from dotmac.tasks.storage.embedded import EmbeddedServer
from dotmac.tasks.storage.embedded_urls import embedded_url, parse_embedded_url
from dotmac.tasks.storage.redis import RedisStorage
from support.processes import wait_until

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("name", ["50%25 off", "what?", "c#1", "a\nb", "ünï", os.fsdecode(b"caf\xe9")], ids=ascii)
async def test_a_storage_lies_in_the_folder_that_was_named(tmp_path: Path, name: str) -> None:
    storage = RedisStorage.embedded(tmp_path / name)
    async with storage.opened():
        assert os.listdir(tmp_path) == [name]  # noqa: PTH208 - this is no place to wait
    assert_stopped(tmp_path / name)


def test_an_address_names_the_folder_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "50%25 off?#", tmp_path / os.fsdecode(b"caf\xe9")):
        assert parse_embedded_url(embedded_url(path)) == path.resolve()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_embedded_url(embedded_url("~/data")) == (tmp_path / "data").resolve()


async def test_a_relative_folder_stays_where_it_was_when_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [RedisStorage("embedded://./data"), RedisStorage("EMBEDDED://data"), RedisStorage.embedded("data")]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for storage in named:
        async with storage.opened():
            assert servers(tmp_path / "data")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("path", ["", "a\0b", "~nobody-of-this-name/data"])
def test_what_can_be_no_folder_is_refused_where_it_is_named(path: str) -> None:
    with pytest.raises(InvalidInput, match="path"):
        RedisStorage.embedded(path)
    with pytest.raises(InvalidInput, match="url"):
        RedisStorage(f"embedded://{path}")


def test_another_address_is_told_of_embedded_ones() -> None:
    with pytest.raises(InvalidInput, match="embedded://"):
        RedisStorage("embed://./data")


async def test_a_circle_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(StorageMisconfigured, match="circle"):
        await EmbeddedServer(tmp_path / "circle").__aenter__()


async def test_without_its_lock_files_it_is_still_served_once(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.__aenter__()
    query(tmp_path, "SET", "key", "value")
    before = servers(tmp_path)
    for lock in ("users.lock", "door.lock"):
        (tmp_path / lock).unlink()
    with user(tmp_path):
        assert servers(tmp_path) == before
        assert query(tmp_path, "GET", "key") == "value"
    with pytest.raises(StorageMisconfigured, match=r"users\.lock"):
        await server.__aexit__(None, None, None)
    wait_gone(tmp_path)
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "GET", "key") == "value"


@pytest.mark.parametrize("how", ["removed", "replaced", "a file"])
async def test_a_folder_that_was_taken_away_is_named(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "data"
    server = EmbeddedServer(folder)
    await server.__aenter__()
    folder.rename(tmp_path / "away")
    if how == "replaced":
        folder.mkdir()
    elif how == "a file":
        folder.write_text("in the way")
    os.kill(keepers(tmp_path / "away")[0], signal.SIGKILL)
    wait_gone(tmp_path / "away")
    with pytest.raises(StorageMisconfigured, match="removed, moved or replaced"):
        await server.ensure_running()
    with pytest.raises(StorageMisconfigured, match="removed, moved or replaced"):
        await server.__aexit__(None, None, None)
    assert not folder.is_dir() or not list(folder.iterdir())


async def test_a_storage_tells_that_its_folder_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    folder = tmp_path / "data"
    async with RedisStorage.embedded(folder).opened():
        shutil.rmtree(folder)
        with trio.fail_after(20):
            while "put the folder back" not in caplog.text:  # noqa: ASYNC110 - a log gives no event
                await trio.sleep(0.01)
    assert "Traceback" not in caplog.text
    wait_gone(folder)


async def test_data_without_its_manifest_is_not_taken_for_none(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path):
        query(tmp_path, "SET", "key", "value")
    data = tmp_path / "appendonlydir"
    manifest = (data / "appendonly.aof.manifest").rename(tmp_path / "kept")
    before = {found.name: found.read_bytes() for found in data.iterdir()}
    with pytest.raises(StorageMisconfigured, match=r"appendonly\.aof\.manifest.*put it back"):
        await EmbeddedServer(tmp_path).__aenter__()
    assert {found.name: found.read_bytes() for found in data.iterdir()} == before
    manifest.rename(data / "appendonly.aof.manifest")
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "GET", "key") == "value"


async def test_what_a_server_leaves_that_was_killed_at_its_first_start_is_no_obstacle(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path):
        pass
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").unlink()
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "PING") == "PONG"


async def test_a_keeper_that_is_killed_at_its_start_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedServer(tmp_path)
    launch, times = server._launch, []

    async def launch_and_kill(claim: Any) -> None:
        await launch(claim)
        times.append(1)
        if len(times) == 1:
            os.kill(wait_until(lambda: keepers(tmp_path), what="the keeper is there")[0], signal.SIGKILL)
            wait_gone(tmp_path)

    monkeypatch.setattr(server, "_launch", launch_and_kill)
    async with server:
        assert query(tmp_path, "PING") == "PONG"
    assert len(times) == 2
