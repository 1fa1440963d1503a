"""The practical limit of a durable saga in one Python process: its commits, and nothing else.

One connection of redis-py in a trio-asyncio loop, on which all callers pipeline. A saga is a loop that commits its
creation and one event for each step through a script of four writes. It has no checks, no handlers, no results, no
retries, no time-outs worth the name, no ownership and no recovery. What the engine loses against it is the price of
those. It shares no code with the package, so that the two cannot get slower together.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import hiredis
import trio
import trio_asyncio
from redis.asyncio.connection import Connection

COMMIT = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and epoch ~= ARGV[1] then return {0, epoch} end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'version', ARGV[2], 'status', ARGV[3])
redis.call('RPUSH', KEYS[2], ARGV[4])
redis.call('ZADD', KEYS[3], ARGV[5], ARGV[6])
return {1, ARGV[2]}
"""


class Pipeline:
    """Commands out in the order they come, replies in by the same order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outgoing: list[bytes] = []
        self._waiting: deque[tuple[trio.Event, list[Any]]] = deque()
        self._wake = asyncio.Event()

    async def ask(self, *command: bytes | str | int) -> Any:
        """Send a command and wait for its reply."""
        event, answer = trio.Event(), list[Any]()
        self._outgoing.append(hiredis.pack_command(command))  # type: ignore[arg-type] # takes any sequence
        self._waiting.append((event, answer))
        self._wake.set()
        await event.wait()
        return answer[0]

    async def write(self) -> None:
        """Send all that has gathered, again and again."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._outgoing:
                batch = b"".join(self._outgoing)
                self._outgoing.clear()
                await self._connection.send_packed_command(batch, check_health=False)

    async def read(self) -> None:
        """Hand replies out, again and again."""
        while True:
            reply = await self._connection.read_response(disable_decoding=True)
            event, answer = self._waiting.popleft()
            answer.append(reply)
            event.set()


async def saga(pipeline: Pipeline, sha: bytes, steps: int, result: object) -> None:
    """Commit a saga of so many steps, each with this result."""
    name = uuid4().hex
    for step in range(steps + 1):
        with trio.move_on_after(30):
            await trio.lowlevel.checkpoint()
        kind = "step_completed" if step else "created"
        event = json.dumps({"kind": kind, "step": step, "at": time.time(), "result": {"done": result}})
        keys = (f"skeleton:s:{name}", f"skeleton:j:{name}", "skeleton:due")
        reply = await pipeline.ask("EVALSHA", sha, len(keys), *keys, 1, step, "running", event, 1, name)
        assert reply[0] == 1


async def sagas_per_second(url: str, lanes: int, count: int, steps: int = 3, result: object = True) -> float:
    """Sagas per second with so many in flight."""
    address = urlsplit(url)
    async with trio_asyncio.open_loop():
        connection = Connection(host=address.hostname or "", port=address.port or 0, socket_timeout=None)
        await trio_asyncio.aio_as_trio(connection.connect)()
        pipeline = Pipeline(connection)
        async with trio.open_nursery() as background:
            background.start_soon(trio_asyncio.aio_as_trio(pipeline.write))
            background.start_soon(trio_asyncio.aio_as_trio(pipeline.read))
            sha = await pipeline.ask("SCRIPT", "LOAD", COMMIT)

            async def lane() -> None:
                for _ in range(count // lanes):
                    await saga(pipeline, sha, steps, result)

            began = time.perf_counter()
            async with trio.open_nursery() as nursery:
                for _ in range(lanes):
                    nursery.start_soon(lane)
            lasted = time.perf_counter() - began
            background.cancel_scope.cancel()
        await trio_asyncio.aio_as_trio(connection.disconnect)()
    return count / lasted
