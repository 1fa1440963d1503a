"""The embedded server when something dies: a user, the server, its keeper, all at once, or a start half-way."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from embedded_helpers import assert_stopped, keepers, query, servers, user, wait_gone

from dotmac.tasks.errors import StorageUnavailable
from dotmac.tasks.storage.embedded import EmbeddedServer
from dotmac.tasks.storage.embedded_folder import ServerFolder
from support.processes import is_alive, processes_in, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.redis


async def test_only_user_killed_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    with user(tmp_path) as only:
        query(tmp_path, "SET", "key", "value")
        only.kill()
        wait_gone(tmp_path)
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "GET", "key") == "value"


async def test_one_of_two_users_killed_leaves_the_server_to_the_other(tmp_path: Path) -> None:
    with user(tmp_path) as starter:
        before = processes_in(tmp_path)
        async with EmbeddedServer(tmp_path):
            starter.kill()
            assert query(tmp_path, "PING") == "PONG"
            assert processes_in(tmp_path) == before
    assert_stopped(tmp_path)


async def test_killed_server_comes_back_with_its_data(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        for count in range(1, 4):
            assert query(tmp_path, "INCR", "count") == count
            (pid,) = servers(tmp_path)
            os.kill(pid, signal.SIGKILL)
            wait_dead(pid)
            await server.ensure_running()
            assert servers(tmp_path) != [pid]
        assert query(tmp_path, "GET", "count") == "3"
    assert_stopped(tmp_path)


async def test_server_told_to_shut_down_comes_back_while_it_has_users(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        (pid,) = servers(tmp_path)
        os.kill(pid, signal.SIGTERM)
        wait_dead(pid)
        await server.ensure_running()
        assert query(tmp_path, "PING") == "PONG"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_keeper_ended_takes_the_server_along_and_users_can_have_both_back(
    tmp_path: Path, how: signal.Signals
) -> None:
    async with EmbeddedServer(tmp_path) as server:
        query(tmp_path, "SET", "key", "value")
        os.kill(keepers(tmp_path)[0], how)
        wait_gone(tmp_path)
        await server.ensure_running()
        assert query(tmp_path, "GET", "key") == "value"
        assert len(keepers(tmp_path)) == 2
    assert_stopped(tmp_path)


async def test_server_that_outlives_its_keeper_bars_a_second_one(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        (pid,) = servers(tmp_path)
        os.kill(pid, signal.SIGSTOP)  # so it cannot hear yet that its keeper is dead
        keeper, waiter = keepers(tmp_path)
        os.kill(keeper, signal.SIGKILL)
        wait_dead(keeper)
        wait_dead(waiter)
        assert ServerFolder(tmp_path).is_kept()
        assert ServerFolder(tmp_path).claim_keeper() is None
        os.kill(pid, signal.SIGCONT)
        wait_dead(pid)
        await server.ensure_running()
        assert query(tmp_path, "PING") == "PONG"


async def test_killed_waiter_is_replaced(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path):
        waiter = keepers(tmp_path)[1]
        os.kill(waiter, signal.SIGKILL)
        wait_until(lambda: len(keepers(tmp_path)) == 2 and waiter not in keepers(tmp_path))
        assert query(tmp_path, "PING") == "PONG"
    assert_stopped(tmp_path)


async def test_everything_killed_at_once_is_no_obstacle(tmp_path: Path) -> None:
    with user(tmp_path) as only:
        query(tmp_path, "SET", "key", "value")
        for pid in [*keepers(tmp_path), *servers(tmp_path)]:
            os.kill(pid, signal.SIGKILL)
        only.kill()
    wait_gone(tmp_path)
    assert (tmp_path / "server.sock").is_socket()
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "GET", "key") == "value"


async def test_user_that_comes_while_the_server_stops_gets_a_fresh_one(tmp_path: Path) -> None:
    with user(tmp_path) as only:
        query(tmp_path, "SET", "key", "value")
        (pid,) = servers(tmp_path)
        os.kill(pid, signal.SIGSTOP)  # it hears that it shall stop when the test says so
        only.kill()
    folder = ServerFolder(tmp_path)

    def is_stopping() -> bool:
        if (lock := folder.enter()) is None:
            return True
        lock.release()
        return False

    wait_until(is_stopping)
    entered = trio.Event()

    async def use() -> None:
        async with EmbeddedServer(tmp_path):
            entered.set()
            assert query(tmp_path, "GET", "key") == "value"
            assert servers(tmp_path) != [pid]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        await trio.testing.wait_all_tasks_blocked()
        assert not entered.is_set()
        os.kill(pid, signal.SIGCONT)
    assert_stopped(tmp_path)


async def test_silent_server_is_an_error_with_a_deadline(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path):
        (pid,) = servers(tmp_path)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StorageUnavailable, match=r"did not answer in 0\.1 s; the end of .*server\.log"):
                await EmbeddedServer(tmp_path, start_timeout=0.1).__aenter__()
        finally:
            os.kill(pid, signal.SIGCONT)


def wait_dead(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), what=f"process {pid} ends")


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope at the n-th step of its task: every place where the task can be cancelled has its number."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def test_start_cancelled_at_any_step_leaves_nothing_and_loses_nothing(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path):
        query(tmp_path, "SET", "key", "value")
    step = 0
    finished = False
    while not finished:
        step += 1
        with trio.CancelScope() as scope:
            instrument = CancelAtStep(scope, step)
            trio.lowlevel.add_instrument(instrument)
            try:
                async with EmbeddedServer(tmp_path):
                    finished = True
                    trio.lowlevel.remove_instrument(instrument)
            finally:
                if not finished:
                    trio.lowlevel.remove_instrument(instrument)
        await trio.to_thread.run_sync(wait_gone, tmp_path)
    assert step > 5
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "GET", "key") == "value"


async def test_leave_that_is_cancelled_still_stops_the_server(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with EmbeddedServer(tmp_path):
            scope.cancel()
    assert scope.cancelled_caught
    wait_gone(tmp_path)


async def test_ordinary_file_in_place_of_the_socket_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "server.sock").write_text("stale")
    (tmp_path / "keeper.lock").write_text("stale")
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(str(tmp_path / "server.sock"))
    async with EmbeddedServer(tmp_path):
        assert query(tmp_path, "PING") == "PONG"
