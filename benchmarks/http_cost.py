"""What the middleware costs a process in CPU time, request by request: no sockets to clients and no HTTP parser.

`python benchmarks/http_cost.py [rounds] [source tree ...]`. The app of `http_middleware.py` is called as a server calls
it, by 32 callers at once, in a loop of asyncio and in one of trio, on a private Redis. What counts is the time that
all threads of the process spent on the CPU: the cheapest of many rounds, because whatever else the machine does can
only make a round dearer. With several source trees (such as ``src`` of two worktrees) each round is run with one after
the other, so that they are compared under the same conditions.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CALLERS, REQUESTS = 32, 320
HOSTS = ("asyncio", "trio")
KINDS = ("plain", "new keys", "replays")
_BODY = b'{"item": "book", "count": 3}'
_numbers = count()


def scope_of(app: Any, key: str) -> dict[str, Any]:
    """A request as uvicorn hands it over."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/orders",
        "raw_path": b"/orders",
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"content-type", b"application/json"),
            (b"x-tenant-id", b"bench"),
            (b"content-length", b"28"),
            (b"idempotency-key", key.encode()),
        ],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "app": app,
    }


async def request(app: Any, key: str, status: int = 201) -> None:
    """One request, and a look at its answer."""
    seen: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": _BODY, "more_body": False}

    async def send(message: Any) -> None:
        seen.append(message)

    await app(scope_of(app, key), receive, send)
    assert seen[0]["status"] == status, seen
    assert seen[-1]["body"], seen


def keys_of(kind: str) -> Callable[[], str]:
    """What names the next request."""
    return (lambda: '"one-key"') if kind == "replays" else (lambda: f'"{os.getpid()}-{next(_numbers)}"')


async def one_round(app: Any, kind: str, all_of: Callable[..., Any]) -> float:
    """Microseconds of CPU time that a request of this kind costs."""
    next_key = keys_of(kind)

    async def caller() -> None:
        for _ in range(REQUESTS // CALLERS):
            await request(app, next_key())

    if kind == "replays":
        await request(app, next_key())
    began = time.process_time()
    await all_of(caller, CALLERS)
    return (time.process_time() - began) / REQUESTS * 1e6


# --- the process that is measured -------------------------------------------------------------------------------


async def serve(all_of: Callable[..., Any], read_line: Callable[[], Any]) -> None:
    """Run a round whenever a line asks for one."""
    os.environ["BENCH_MODE"] = "plain"
    sys.path[:0] = [str(ROOT)]
    from benchmarks import http_app  # noqa: PLC0415 - it makes an app of what it finds in the environment

    plain = http_app.app
    http_app.MODE = "redis"
    ours = http_app.protected_by_us()
    await request(ours, keys_of("new keys")())  # which starts the runtime
    while line := await read_line():
        kind = line.strip()
        spent = await one_round(plain if kind == "plain" else ours, kind, all_of)
        print(json.dumps(spent), flush=True)


def serve_in_asyncio() -> None:
    import asyncio  # noqa: PLC0415 - each process has one of them

    async def all_of(function: Any, callers: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(function())

    asyncio.run(serve(all_of, lambda: asyncio.to_thread(sys.stdin.readline)))


def serve_in_trio() -> None:
    import trio  # noqa: PLC0415 - each process has one of them

    async def all_of(function: Any, callers: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(function)

    trio.run(serve, all_of, lambda: trio.to_thread.run_sync(sys.stdin.readline))


# --- the one that measures --------------------------------------------------------------------------------------


class Measured:
    """A process with the app, on one source tree and in one kind of loop."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.least = dict.fromkeys(KINDS, math.inf)

    def round(self, kind: str) -> None:
        """Have it run one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(kind + "\n")
        self._process.stdin.flush()
        self.least[kind] = min(self.least[kind], json.loads(self._process.stdout.readline()))


@contextmanager
def measured(tree: str, host: str, redis: str) -> Iterator[Measured]:
    environment = os.environ | {"PYTHONPATH": tree, "BENCH_REDIS": redis}
    command = [sys.executable, __file__, "--serve", host]
    with subprocess.Popen(command, env=environment, stdin=-1, stdout=-1, text=True) as process:
        try:
            yield Measured(process)
        finally:
            process.kill()


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        {"asyncio": serve_in_asyncio, "trio": serve_in_trio}[sys.argv[2]]()
        return
    sys.path[:0] = [str(ROOT / "tests")]  # the servers of the tests
    from support.servers import standalone  # noqa: PLC0415 - only this process needs one

    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    trees = sys.argv[2:] or [str(ROOT / "src")]
    with ExitStack() as stack:
        redis = stack.enter_context(standalone("appendonly yes", "appendfsync everysec"))
        all_measured = {
            (host, tree): stack.enter_context(measured(tree, host, redis.url)) for host in HOSTS for tree in trees
        }
        for _ in range(rounds):
            for kind in KINDS:
                for one in all_measured.values():
                    one.round(kind)
        print(f"microseconds of CPU time per request, the least of {rounds} rounds of {REQUESTS}, {CALLERS} callers")
        print(f"{'':10}{''.join(f'{kind:>10}' for kind in KINDS)}")
        for (host, tree), one in all_measured.items():
            print(f"{host:10}{''.join(f'{one.least[kind]:10.0f}' for kind in KINDS)}   {tree}")


if __name__ == "__main__":
    main()
