"""A process that uses locks: ``python -m locks.lock_process URL PREFIX visit COUNT CALLERS | hold TTL``."""

# ruff: noqa: T201 - standard output is how the test hears of it

from __future__ import annotations

import os
import sys
import time

import trio

from dotmac.tasks import BackgroundOperationsManager, LockLost
from dotmac.tasks.storage.redis import RedisStorage
from locks.history import Visit


async def visit(manager: BackgroundOperationsManager, count: int, callers: int) -> None:
    """Go in and out, and tell each visit."""
    who, visits = str(os.getpid()), list[Visit]()

    async def caller() -> None:
        for _ in range(count // callers):
            async with manager.lock("a", ttl=30) as held:
                entered = time.monotonic_ns()
                await trio.lowlevel.checkpoint()
                visits.append(Visit(held.fence, entered, time.monotonic_ns(), who))

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)
    sys.stdout.writelines(visit.line() for visit in visits)


async def hold(manager: BackgroundOperationsManager, ttl: float) -> None:
    """Hold the lock until it is lost, and tell how that was noticed."""
    try:
        async with manager.lock("a", ttl=ttl) as held:
            print(f"held {held.fence}", flush=True)
            # Most of the time is spent here, so this is where a stop of the process falls.
            while True:
                before = time.monotonic()
                await trio.sleep(0.02)
                if time.monotonic() - before > ttl:
                    print("went on after a stop", flush=True)
    except LockLost:
        print("lost", flush=True)


async def main(*words: str) -> None:
    url, prefix, what, *arguments = words
    async with BackgroundOperationsManager(storage=RedisStorage(url, prefix=prefix, partitions=1)) as manager:
        if what == "visit":
            await visit(manager, int(arguments[0]), int(arguments[1]))
        else:
            await hold(manager, float(arguments[0]))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
