"""What event streams of one saga with a long history cost: processor time of the service, and bytes read from Redis.

`python benchmarks/event_streams.py [SECONDS] [STREAMS] [ENTRIES]`. The service's app is called as a server calls it, by
60 streams of one saga with 1,003 entries, on a private Redis. Once each stream has the history, the saga rests, or gets
a note each second. Beside the streams, in the same run: the same number of readers that each read the whole history
every second, and one such reader (streams that share a look at the whole history). The cost of the manager and the
server without any reader is measured first, and subtracted. A look is one reading of the saga from the storage.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the servers of the tests

from dotmac.tasks import BackgroundOperationsManager, OperationStatus  # noqa: E402
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition  # noqa: E402
from dotmac.tasks.saga.events import AttemptStarted, SagaCreated, SagaStarted, encode_events  # noqa: E402
from dotmac.tasks.service.app import create_app  # noqa: E402
from dotmac.tasks.storage.records import Append, NewSaga  # noqa: E402
from dotmac.tasks.storage.redis import RedisStorage  # noqa: E402
from support.servers import Server, standalone  # noqa: E402

SECONDS, STREAMS, ENTRIES = 10.0, 60, 1003
RUNNING = OperationStatus.IN_PROGRESS


@dataclass
class Cost:
    """Of one measurement.

    Attributes:
        cpu: Seconds of processor time of this process, per second.
        server_cpu: The same of the Redis server.
        looks: Readings of the saga, per second.
        read: Bytes that the server sent, per second.
    """

    cpu: float
    server_cpu: float
    looks: float
    read: float

    def line(self, what: str, idle: Cost) -> str:
        """A line of the table, without the cost of a manager and a server that serve no reader."""
        read = self.read - idle.read
        per_look = read / self.looks if self.looks else 0.0
        shares = f"{self.cpu - idle.cpu:8.1%}{self.server_cpu - idle.server_cpu:10.1%}"
        return f"{what:64}{shares}{self.looks:10.1f}{per_look:16,.0f}"


class Counted(RedisStorage):
    """Counts the readings of sagas."""

    looks = 0

    async def load_saga(self, *arguments: Any, **named: Any) -> Any:
        """Count, and read."""
        self.looks += 1
        return await super().load_saga(*arguments, **named)


async def stored(storage: RedisStorage, entries: int) -> str:
    """A saga with so many entries that no worker runs."""
    saga_id = storage.new_saga_id()
    definition = SagaDefinition(saga_id, "t", "w", (StepDefinition("one", "do", {"of": "the benchmark"}),))
    first = encode_events([SagaCreated(definition), SagaStarted()])
    await storage.create_saga(NewSaga(saga_id, "t", "w", RUNNING, 1, "0", first, owner="none"))
    for number in range(1, entries):
        events = encode_events([AttemptStarted(0, number)])
        await storage.append(Append(saga_id, 1, number, str(number), events, RUNNING, 0))
    return saga_id


async def stream(app: Any, saga_id: str, entries: int, caught_up: trio.Semaphore) -> None:
    """One client's stream, until it is cancelled."""
    path = f"/v1/sagas/{saga_id}/events"
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers":
        [(b"host", b"localhost")], "scheme": "http", "server": ("localhost", 80), "root_path": "",
    }  # fmt: skip
    seen, requested = 0, False

    async def send(message: dict[str, Any]) -> None:
        nonlocal seen
        await trio.lowlevel.checkpoint()
        before = seen
        seen += message.get("body", b"").count(b"id: ")
        if before < entries <= seen:
            caught_up.release()

    async def receive() -> dict[str, Any]:
        nonlocal requested
        if requested:
            await trio.sleep_forever()
        requested = True
        return {"type": "http.request", "body": b"", "more_body": False}

    await app(scope, receive, send)


async def reader(manager: BackgroundOperationsManager, saga_id: str, caught_up: trio.Semaphore) -> None:
    """Reads the whole history every second, until it is cancelled."""
    await manager.get_saga_history(saga_id)
    caught_up.release()
    while True:
        await trio.sleep(1.0)
        await manager.get_saga_history(saga_id)


@asynccontextmanager
async def readers(count: int, start: Callable[[trio.Semaphore], Awaitable[None]]) -> AsyncIterator[None]:
    """So many of them, each with the history."""
    caught_up = trio.Semaphore(0)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(start, caught_up)
        for _ in range(count):
            await caught_up.acquire()
        yield
        nursery.cancel_scope.cancel()


def used(server: Server) -> tuple[float, float]:
    """Seconds of processor time of the server, and bytes that it sent."""
    told = server.cli("INFO")

    def value(name: str) -> float:
        found = re.search(rf"^{name}:([0-9.]+)", told, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    return value("used_cpu_user") + value("used_cpu_sys"), value("total_net_output_bytes")


async def measured(
    server: Server, storage: Counted, seconds: float, each_second: Callable[[], Awaitable[None]]
) -> Cost:
    """The cost of a second."""
    looks, cpu, (server_cpu, sent), began = storage.looks, time.process_time(), used(server), time.perf_counter()
    async with trio.open_nursery() as nursery:

        async def change() -> None:
            while True:
                await each_second()
                await trio.sleep(1.0)

        nursery.start_soon(change)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
    took, (server_after, sent_after) = time.perf_counter() - began, used(server)
    return Cost(
        (time.process_time() - cpu) / took,
        (server_after - server_cpu) / took,
        (storage.looks - looks) / took,
        (sent_after - sent) / took,
    )


async def compared(server: Server, seconds: float, streams: int, entries: int) -> None:
    """Measure and print."""
    storage = Counted(server.url, prefix="bench")
    manager = BackgroundOperationsManager(storage, works=False)
    async with manager:
        saga_id, app = await stored(storage, entries), create_app(manager)
        for changes in (False, True):

            async def change(changes: bool = changes) -> None:
                if changes:
                    await manager.add_saga_note(saga_id, "seen", {"by": "the benchmark"})

            idle = await measured(server, storage, seconds, change)
            known = len(await manager.get_saga_history(saga_id))
            whole = partial(reader, manager, saga_id)
            kinds: list[tuple[str, int, Callable[[trio.Semaphore], Awaitable[None]]]] = [
                (f"{streams} event streams", streams, partial(stream, app, saga_id, known)),
                ("1 reader of the whole history each second", 1, whole),
                (f"{streams} readers of the whole history each second", streams, whole),
            ]
            for what, count, start in kinds:
                async with readers(count, start):
                    cost = await measured(server, storage, seconds, change)
                print(cost.line(f"{what}, {'a note each second' if changes else 'at rest'}", idle), flush=True)


def main() -> None:
    given = [float(text) for text in sys.argv[1:4]]
    seconds, streams, entries = (*given, *(SECONDS, float(STREAMS), float(ENTRIES))[len(given) :])
    print(f"one saga with {entries:.0f} entries; {seconds:g} s each; share of one core\n")
    print(f"{'':64}{'service':>8}{'server':>10}{'looks/s':>10}{'bytes per look':>16}")
    with standalone("appendfsync everysec", aof=True) as server:
        trio.run(compared, server, seconds, int(streams), int(entries))


if __name__ == "__main__":
    main()
