"""taskiq as a peer: each step is a task in a Redis stream, and sends the next one before it is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from benchmarks.peers.driving import IN_FLIGHT, STEPS, main, measure, slow_step, stand_by
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

ended = dict[str, asyncio.Event]()


def quick(broker: Any) -> Any:
    """A task that does nothing but send the next."""

    async def step(workflow: str, number: int, payload: str) -> None:
        if number < STEPS:
            await task.kiq(workflow, number + 1, payload)
        else:
            ended.pop(workflow).set()

    task = broker.register_task(step, task_name="step")
    return task


def slow(broker: Any) -> Any:
    """A task that takes its time."""

    async def step(number: int) -> None:
        await slow_step(number)
        if number < STEPS:
            await task.kiq(number + 1)

    task = broker.register_task(step, task_name="slow")
    return task


async def received(broker: Any, main_part: Callable[[], Any]) -> None:
    """Run the part beside a receiver of the broker's tasks."""
    broker.is_worker_process = True
    await broker.startup()
    receiver = asyncio.create_task(run_receiver_task(broker, max_async_tasks=max(IN_FLIGHT)))
    await main_part()
    receiver.cancel()


async def measured(url: str, seconds: float, payload: str) -> None:
    """Measure it."""
    broker = RedisStreamBroker(url, queue_name="peer", max_connection_pool_size=400, xread_block=50)
    task = quick(broker)

    async def one() -> None:
        workflow = uuid4().hex
        event = ended[workflow] = asyncio.Event()
        await task.kiq(workflow, 1, payload)
        await event.wait()

    await received(broker, lambda: measure(one, seconds))


async def served(url: str, name: str) -> None:
    """Be a worker at default settings."""
    broker = RedisStreamBroker(url, queue_name="peer", consumer_name=name)
    task = slow(broker)
    await received(broker, lambda: stand_by(lambda: task.kiq(1)))


if __name__ == "__main__":
    main(measured, served)
