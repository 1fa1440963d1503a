"""A server that lost what it had acknowledged: as after a failover, or a restart from an old snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from degradation.house import house, until
from support.servers import standalone

pytestmark = pytest.mark.redis


async def test_a_saga_whose_end_was_forgotten_is_run_again_by_its_owner(binary: Path | None) -> None:
    with standalone(binary=binary) as server:
        async with house(server, worker_lease=1.2) as home:
            handle = await home.start("a")
            await until(lambda: home.begun == ["a 1"])
            server.cli("SAVE")
            home.gate.set()
            assert (await handle.result()).completed
            await trio.to_thread.run_sync(server.kill)
            await trio.to_thread.run_sync(server.start)
            await until(lambda: home.ended == ["a 1", "a 2"], seconds=60)
            with trio.fail_after(30):
                assert (await handle.result()).completed
            assert home.fences[0] < home.fences[1]


async def test_an_actor_ahead_of_the_journal_begins_again_where_the_journal_ends(binary: Path | None) -> None:
    with standalone(binary=binary) as server:
        async with house(server, worker_lease=30.0) as home:
            handle = await home.start("a", "b", "c")
            await until(lambda: home.begun == ["a 1"])
            server.cli("SAVE")
            home.gate.set()
            home.gate = trio.Event()
            await until(lambda: home.begun == ["a 1", "b 1"])
            await trio.to_thread.run_sync(server.kill)
            await trio.to_thread.run_sync(server.start)
            home.gate.set()
            with trio.fail_after(30):
                assert (await handle.result()).completed
            assert home.begun == ["a 1", "b 1", "a 2", "b 1", "c 1"]
