"""Locks between real processes on a real server: exclusion, processes that are stopped, killed, and come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, LockInfo
from dotmac.tasks.storage.redis import RedisStorage
from locks.history import Visit, check
from support.processes import spawn
from support.servers import Server

pytestmark = pytest.mark.redis
TESTS = Path(__file__).parents[1]
Make = Callable[..., RedisStorage]


@contextmanager
def _process(server: Server, prefix: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-W", "error", "-m", "locks.lock_process", server.url, prefix, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with spawn(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


async def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    with trio.fail_after(60):
        line = await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
    return str(line.decode().strip())


async def _visits(server: Server, prefix: str, processes: int, count: int) -> list[Visit]:
    visits: list[Visit] = []

    async def one() -> None:
        with _process(server, prefix, "visit", str(count), "5") as process:
            out, _ = await trio.to_thread.run_sync(process.communicate)
            assert process.returncode == 0
            visits.extend(map(Visit.parse, out.decode().splitlines()))

    async with trio.open_nursery() as nursery:
        for _ in range(processes):
            nursery.start_soon(one)
    return visits


async def test_processes_exclude_each_other(server: Server, prefix: str) -> None:
    """Case 1, small."""
    visits = await _visits(server, prefix, processes=3, count=500)
    assert len(visits) == 1500
    check(visits)
    assert len({visit.who for visit in visits}) == 3


@pytest.mark.slow
async def test_many_processes_exclude_each_other_for_long(server: Server, prefix: str) -> None:
    """Case 1 at full size."""
    visits = await _visits(server, prefix, processes=8, count=10_000)
    assert len(visits) == 80_000
    check(visits)


async def test_a_stopped_process_loses_its_lock_at_its_first_checkpoint(
    server: Server, prefix: str, storage_of: Make
) -> None:
    """Case 5: SIGSTOP for longer than the lease."""
    async with BackgroundOperationsManager(storage=storage_of(server.url)) as manager:
        with _process(server, prefix, "hold", "1.0") as process:
            first = int((await _line(process)).removeprefix("held "))
            process.send_signal(signal.SIGSTOP)
            with trio.fail_after(30):
                async with manager.lock("a", ttl=30) as held:
                    assert held.fence > first
                    process.send_signal(signal.SIGCONT)
                    assert await _line(process) == "lost"
                    (info,) = await manager.list_locks()
                    assert info.fence == held.fence


async def test_the_lock_of_a_killed_process_is_free_when_its_lease_ends(
    server: Server, prefix: str, storage_of: Make
) -> None:
    """Case 9."""
    async with BackgroundOperationsManager(storage=storage_of(server.url)) as manager:
        with _process(server, prefix, "hold", "2.0") as process:
            first = int((await _line(process)).removeprefix("held "))
            process.kill()
            with trio.fail_after(30):
                async with manager.lock("a") as held:
                    assert held.fence > first


async def test_killed_waiters_do_not_hold_up_those_behind_them(server: Server, prefix: str, storage_of: Make) -> None:
    """Case 9: the head and all others in front."""
    async with BackgroundOperationsManager(storage=storage_of(server.url)) as manager:
        with _process(server, prefix, "hold", "30") as one, _process(server, prefix, "hold", "30") as two:
            async with manager.lock("a", ttl=60):
                with trio.fail_after(60):
                    while (await _only(manager)).waiters < 2:  # noqa: ASYNC110 - other processes announce nothing
                        await trio.sleep(0.05)
                one.kill()
                two.kill()
            with trio.fail_after(30):
                async with manager.lock("a"):
                    pass


async def _only(manager: BackgroundOperationsManager) -> LockInfo:
    (info,) = await manager.list_locks()
    return info
