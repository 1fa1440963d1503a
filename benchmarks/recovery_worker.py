"""A worker process of `benchmarks/recovery.py`: `python recovery_worker.py URL`, at default settings.

It reads commands as lines on its standard input and answers with lines of ``word nanoseconds`` on its standard output,
by the monotonic clock, which all processes of a machine share.

    start COUNT SECONDS   start as many sagas of five steps of so many seconds each
    sleep COUNT           start as many sagas whose first step fails and is tried again in an hour
    expect COUNT          say ``expected`` when as many attempts have begun from now on
"""

from __future__ import annotations

import sys
import time
from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.runtime.context import HandlerContext
from dotmac.tasks.storage.redis import RedisStorage

LANES = 100
STEPS = ("first", "second", "third", "fourth", "fifth")
HOUR = {"max_retries": 3, "initial_delay": 3600.0, "max_delay": 3600.0, "jitter": False}


class Worker:
    """The process: a manager, and how many attempts have begun in it."""

    def __init__(self, url: str) -> None:
        self.manager = BackgroundOperationsManager(storage=RedisStorage(url, socket_timeout=30.0))
        self.manager.register_operation_handler("take", self.take)
        self.manager.register_operation_handler("fail", self.fail)
        self.quiet = False
        self.left = 0

    async def take(self, parameters: dict[str, Any], context: HandlerContext) -> None:
        """A step that takes its time."""
        self.began(f"{context.step}-{context.attempt}")
        await trio.sleep(parameters["seconds"])

    async def fail(self, _parameters: dict[str, Any]) -> None:
        """A step that fails."""
        self.began("failing")
        raise ValueError("as it was told")

    def began(self, what: str) -> None:
        """An attempt has begun."""
        if not self.quiet:
            say(what)
        self.left -= 1
        if self.left == 0:
            say("expected")

    async def run(self) -> None:
        """Serve until standard input ends."""
        async with self.manager, trio.lowlevel.FdStream(0) as stream:
            say("ready")
            rest = b""
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    await self.obey(*line.decode().split())

    async def obey(self, what: str, count: str, seconds: str = "0") -> None:
        """Carry a command out."""
        many = int(count)
        if what == "expect":
            self.left, self.quiet = many, True
            say("expecting")
            return
        name, first = ("fail", {"retry": HOUR}) if what == "sleep" else ("take", {})
        self.quiet = many > 1
        parameters = {"seconds": float(seconds)}
        steps = [{"name": step, "operation": name, "parameters": parameters, **first} for step in STEPS]
        await self.start(steps, many)

    async def start(self, steps: list[dict[str, Any]], count: int) -> None:
        """Start so many sagas, many at a time."""
        numbers = iter(range(count))

        async def lane() -> None:
            for _ in numbers:
                await self.manager.start_saga(tenant_id="bench", workflow_type="recovery", steps=steps)

        async with trio.open_nursery() as nursery:
            for _ in range(min(LANES, count)):
                nursery.start_soon(lane)
        say("started")


def say(what: str) -> None:
    """Tell the benchmark, with the time."""
    print(what, time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    trio.run(Worker(sys.argv[1]).run)
