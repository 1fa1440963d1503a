"""streaq as a peer: each step is a task in a Redis stream, and enqueues the next one before it is acknowledged."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import anyio
from benchmarks.peers.driving import IN_FLIGHT, STEPS, main, measure, slow_step, stand_by
from streaq import Worker

ended = dict[str, asyncio.Event]()


def quick(worker: Any) -> Any:
    """A task that does nothing but enqueue the next."""

    async def step(workflow: str, number: int, payload: str) -> None:
        if number < STEPS:
            await task.enqueue(workflow, number + 1, payload)
        else:
            ended.pop(workflow).set()

    task = worker.task(step)
    return task


def slow(worker: Any) -> Any:
    """A task that takes its time."""

    async def step(number: int) -> None:
        await slow_step(number)
        if number < STEPS:
            await task.enqueue(number + 1)

    task = worker.task(step)
    return task


async def measured(url: str, seconds: float, payload: str) -> None:
    """Measure it."""
    worker = Worker(redis_url=url, concurrency=max(IN_FLIGHT), queue_name="peer", handle_signals=False)
    task = quick(worker)

    async def one() -> None:
        workflow = uuid4().hex
        event = ended[workflow] = asyncio.Event()
        await task.enqueue(workflow, 1, payload)
        await event.wait()

    async with anyio.create_task_group() as group:
        await group.start(worker.run_async)
        await measure(one, seconds)
        group.cancel_scope.cancel()


async def served(url: str, name: str) -> None:
    """Be a worker at default settings."""
    worker = Worker(redis_url=url, queue_name="peer", handle_signals=False, id=name)
    task = slow(worker)
    async with anyio.create_task_group() as group:
        await group.start(worker.run_async)
        await stand_by(lambda: task.enqueue(1))


if __name__ == "__main__":
    main(measured, served)
