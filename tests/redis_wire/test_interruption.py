"""Ctrl-C, wherever it hits: the program's own task gets it, and each reply still belongs to its call."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dotmac.tasks.storage.redis.gateway import RedisClient
from dotmac.tasks.storage.redis.shared import Shared
from redis_wire import interrupted_opening
from redis_wire.interrupted_opening import ctrl_c_at
from redis_wire.wire_helpers import client_of
from support.servers import Server

OPENING = Path(interrupted_opening.__file__)
POINTS = 200  # more than a call has


@pytest.mark.redis
def test_ctrl_c_in_the_midst_of_a_call_leaves_each_reply_to_its_call(server: Server, host: str) -> None:
    async def program() -> None:
        async with client_of(server.url, loop_host=host) as client:
            await client.execute("PING")
            await wait_all_tasks_blocked()  # trio-asyncio has made the connection; it could be interrupted in that
            for point in range(POINTS):
                with pytest.raises(KeyboardInterrupt), ctrl_c_at(point):
                    await _keep_asking(client)
                assert await client.execute("ECHO", str(point)) == str(point).encode()

    trio.run(program)


async def _keep_asking(client: RedisClient) -> None:
    while True:
        await client.execute("ECHO", "interrupted")


def test_ctrl_c_in_a_task_that_nothing_protects_reaches_the_program() -> None:
    async def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupted)
            yield

    async def program() -> None:
        async with Shared(opened).used():
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):  # and not an internal error of trio
        trio.run(program)


@pytest.mark.redis
def test_ctrl_c_while_the_connection_is_made_reaches_the_program(server: Server) -> None:
    """It ended the loop inside the trio run, whose futures were waited for without end."""
    ended = subprocess.run(
        [sys.executable, OPENING, server.url], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 100
