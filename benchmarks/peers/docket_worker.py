"""docket as a peer: each step is a task in a Redis stream, and adds the next one before it is acknowledged."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

from benchmarks.peers.driving import IN_FLIGHT, STEPS, main, measure, slow_step, stand_by
from docket import Docket, Worker

ended = dict[str, asyncio.Event]()


class Steps:
    """The tasks, which have to know their docket to go on."""

    def __init__(self, url: str) -> None:
        self.docket = Docket(name="peer", url=f"{url}?max_connections=400")

    async def step(self, workflow: str, number: int, payload: str) -> None:
        """A step that does nothing but add the next."""
        if number < STEPS:
            await self.docket.add(self.step, key=f"{workflow}-{number + 1}")(workflow, number + 1, payload)
        else:
            ended.pop(workflow).set()

    async def slow(self, number: int) -> None:
        """A step that takes its time."""
        await slow_step(number)
        if number < STEPS:
            await self.docket.add(self.slow)(number + 1)

    async def one(self, payload: str) -> None:
        """A workflow, from its first step to its end."""
        workflow = uuid4().hex
        event = ended[workflow] = asyncio.Event()
        await self.docket.add(self.step, key=f"{workflow}-1")(workflow, 1, payload)
        await event.wait()


async def measured(url: str, seconds: float, payload: str) -> None:
    """Measure it, with a worker that looks for work as often as it may."""
    steps = Steps(url)
    async with steps.docket as docket:
        docket.register(steps.step)
        soon = {
            "minimum_check_interval": timedelta(milliseconds=5),
            "scheduling_resolution": timedelta(milliseconds=50),
        }
        async with Worker(docket, concurrency=max(IN_FLIGHT), **soon) as worker:
            running = asyncio.create_task(worker.run_forever())
            await measure(lambda: steps.one(payload), seconds)
            running.cancel()


async def served(url: str, name: str) -> None:
    """Be a worker at default settings."""
    steps = Steps(url)
    async with steps.docket as docket:
        docket.register(steps.slow)
        async with Worker(docket, name=name) as worker:
            running = asyncio.create_task(worker.run_forever())
            await stand_by(lambda: docket.add(steps.slow)(1))
            await running


if __name__ == "__main__":
    main(measured, served)
