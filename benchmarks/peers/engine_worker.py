"""The package itself, measured as its peers are: sagas of steps that do nothing, each journaled before the next."""

from __future__ import annotations

import sys
from typing import Any

import trio
from benchmarks.peers.driving import IN_FLIGHT, STEP_SECONDS, STEPS, WARM_UP, Meter, main, say_step

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.storage.redis import RedisStorage


def manager_of(url: str) -> BackgroundOperationsManager:
    """A manager with the steps of this script, at default settings."""
    manager = BackgroundOperationsManager(RedisStorage(url, socket_timeout=30.0))
    manager.register_operation_handler("echo", echo)
    manager.register_operation_handler("slow", slow)
    return manager


async def echo(parameters: dict[str, Any]) -> str:
    """A step that does nothing."""
    payload: str = parameters["payload"]
    return payload


async def slow(parameters: dict[str, Any]) -> None:
    """A step that takes its time."""
    say_step(parameters["number"])
    await trio.sleep(STEP_SECONDS)


async def measured(url: str, seconds: float, payload: str) -> None:
    """Measure it."""
    steps = [{"name": f"step-{n}", "operation": "echo", "parameters": {"payload": payload}} for n in range(STEPS)]

    async def one() -> None:
        handle = await manager.start_saga(tenant_id="peer", workflow_type="peer", steps=steps)
        assert (await handle.result()).completed

    async with manager_of(url) as manager:
        for _ in range(WARM_UP):
            await one()
        for in_flight in IN_FLIGHT:
            meter = Meter(one, in_flight, seconds)
            async with trio.open_nursery() as nursery:
                for _ in range(in_flight):
                    nursery.start_soon(meter.lane)
            meter.say()


async def served(url: str, _name: str) -> None:
    """Be a worker at default settings."""
    steps = [{"name": f"step-{n}", "operation": "slow", "parameters": {"number": n}} for n in range(1, STEPS + 1)]
    async with manager_of(url) as manager:
        print("ready", flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline):
            await manager.start_saga(tenant_id="peer", workflow_type="peer", steps=steps)
        await trio.sleep_forever()


async def as_it_is(work: Any) -> None:
    """Let trio run a coroutine that was made already."""
    await work


if __name__ == "__main__":
    main(measured, served, lambda work: trio.run(as_it_is, work))
