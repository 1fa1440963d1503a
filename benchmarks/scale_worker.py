"""A worker process of `benchmarks/scale.py`: ``python -m benchmarks.scale_worker URL LOAD``, where LOAD is JSON.

It says ``ready``, and for each line on its standard input runs the load once and prints JSON: the seconds and the
processor seconds that it took, and the time of a commit in milliseconds. With ``hold`` in the load, all sagas stay in
their first step, and it prints by how many bytes the process has grown.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager
from dotmac.tasks.metrics import register_metrics_hooks
from dotmac.tasks.storage.redis import RedisStorage


class Runner:
    """Runs the load on a manager that is started."""

    def __init__(self, manager: BackgroundOperationsManager, load: dict[str, Any]) -> None:
        self._manager, self._load = manager, load
        parameters = {"payload": "x" * load["payload"]}
        self._steps = [
            {"name": f"step-{number}", "operation": "work", "parameters": parameters} for number in range(load["steps"])
        ]
        manager.register_operation_handler("work", self._work)
        self._held, self._all_held = 0, trio.Event()

    async def _work(self, parameters: dict[str, Any]) -> str:
        if self._load.get("hold"):
            self._held += 1
            if self._held == self._load["sagas"]:
                self._all_held.set()
            await trio.sleep_forever()
        payload: str = parameters["payload"]
        return payload

    async def run(self) -> dict[str, float]:
        """Run all sagas to their end, many at a time."""
        numbers = iter(range(self._load["sagas"]))
        commits = list[float]()

        def called(verb: str, _tenant: str, details: dict[str, Any]) -> None:
            if verb == "append":
                commits.append(details["seconds"])

        async def lane() -> None:
            for number in numbers:
                saga = await self._start(number)
                assert (await saga.result()).completed

        # One at a time, a commit's own time can be seen; among many, a hook would only add to what is measured.
        alone = self._load["in_flight"] == 1
        unregister = register_metrics_hooks(storage_operation_hook=called) if alone else None
        clock, processor = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(self._load["in_flight"]):
                nursery.start_soon(lane)
        row = {"seconds": time.perf_counter() - clock, "processor": time.process_time() - processor}
        if unregister is not None:
            unregister()
            cuts = [1000 * cut for cut in statistics.quantiles(commits, n=100)]
            row |= {"commit_p50_ms": cuts[49], "commit_p99_ms": cuts[98]}
        return row

    async def hold(self) -> dict[str, float]:
        """Start all sagas, and come back when the first step of each runs."""
        gc.collect()
        before = resident()
        for number in range(self._load["sagas"]):
            await self._start(number)
        await self._all_held.wait()
        gc.collect()
        return {"bytes": resident() - before}

    async def _start(self, number: int) -> Any:
        tenant = f"tenant-{number % self._load['tenants']}"
        return await self._manager.start_saga(tenant_id=tenant, workflow_type="scale", steps=self._steps)


def resident() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def main(url: str, load: dict[str, Any]) -> None:
    storage = RedisStorage(url, socket_timeout=30.0)
    async with BackgroundOperationsManager(storage, **load["settings"]) as manager:
        runner = Runner(manager, load)
        print("ready", flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            row = await (runner.hold() if load.get("hold") else runner.run())
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], json.loads(sys.argv[2]))
