"""The same work with other libraries' locks. Runs alone, in an environment that has them: imports nothing of ours.

`python lock_callers.py alone|contended NAME URL SECONDS CALLERS`; callers are threads, as these libraries
are used, except for ``redis-py asyncio``, where they are tasks.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

ALONE, CONTENDED = "alone", "contended"


def _redis_py(url: str) -> Callable[[str], AbstractContextManager[Any]]:
    import redis  # noqa: PLC0415 - each library is there in its own environment only

    client = redis.Redis.from_url(url, max_connections=1000)
    return lambda name: client.lock(name, timeout=10, sleep=0.001)


def _python_redis_lock(url: str) -> Callable[[str], AbstractContextManager[Any]]:
    import redis  # noqa: PLC0415 - as it says above
    import redis_lock  # type: ignore[import-not-found]  # noqa: PLC0415 - as it says above

    client = redis.Redis.from_url(url, max_connections=1000)
    return lambda name: redis_lock.Lock(client, name, expire=10)


def _pottery(url: str) -> Callable[[str], AbstractContextManager[Any]]:
    import pottery  # type: ignore[import-not-found]  # noqa: PLC0415 - as it says above
    import redis  # noqa: PLC0415 - as it says above

    client = redis.Redis.from_url(url, max_connections=1000)
    return lambda name: pottery.Redlock(key=name, masters={client}, auto_release_time=10)


PLAIN = ("redis-py", "redis-py asyncio")
"""What the project's own environment has."""

CALLERS = {"redis-py": _redis_py, "python-redis-lock": _python_redis_lock, "pottery": _pottery}


def in_threads(work: Callable[[int], None], callers: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def alone(make: Callable[[str], AbstractContextManager[Any]], seconds: float, callers: int) -> float:
    counts = [0] * callers
    began = time.perf_counter()

    def work(number: int) -> None:
        while time.perf_counter() < began + seconds:
            with make(f"alone-{number}"):
                counts[number] += 1

    in_threads(work, callers)
    return sum(counts) / (time.perf_counter() - began)


def contended(make: Callable[[str], AbstractContextManager[Any]], seconds: float, callers: int) -> list[Any]:
    moments: list[tuple[int, int]] = []
    with make("warm-up"):
        pass
    print("ready", flush=True)
    ends = float(sys.stdin.readline()) + seconds

    def work(_number: int) -> None:
        while time.monotonic() < ends:
            with make("contended"):
                granted = time.monotonic_ns()
                moments.append((granted, time.monotonic_ns()))

    in_threads(work, callers)
    return moments


async def asynchronous(what: str, url: str, seconds: float, callers: int) -> Any:
    import redis.asyncio  # noqa: PLC0415

    client = redis.asyncio.Redis.from_url(url, max_connections=1000)
    moments: list[tuple[int, int]] = []
    ends = 0.0

    async def work(number: int) -> None:
        name = f"alone-{number}" if what == ALONE else CONTENDED
        while time.monotonic() < ends:
            async with client.lock(name, timeout=10, sleep=0.001):
                granted = time.monotonic_ns()
                await asyncio.sleep(0)
                moments.append((granted, time.monotonic_ns()))

    await client.ping()
    if what == CONTENDED:
        print("ready", flush=True)
    began = float(sys.stdin.readline()) if what == CONTENDED else time.monotonic()
    ends = began + seconds
    await asyncio.gather(*(work(number) for number in range(callers)))
    await client.aclose()
    return len(moments) / (time.monotonic() - began) if what == ALONE else moments


if __name__ == "__main__":
    _, what, name, url, duration, callers = sys.argv
    if name == "redis-py asyncio":
        print(json.dumps(asyncio.run(asynchronous(what, url, float(duration), int(callers)))))
        sys.exit()
    maker = CALLERS[name](url)
    if what == ALONE:
        print(alone(maker, float(duration), int(callers)))
    else:
        print(json.dumps(contended(maker, float(duration), int(callers))))
