"""A request leaves nothing behind that only the garbage collector can free: its runs would cost every request."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trio.testing import MockClock

from bridge.hosts import run_asyncio
from dotmac.tasks import BackgroundOperationsManager, BackgroundOperationsMiddleware, MemoryStorage
from middleware.apps import answer, app_of

REQUESTS = 10


async def request(app: Any, key: str) -> None:
    """Sent without a client, which might leave something of its own."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status", 0))

    headers = [(b"idempotency-key", key.encode()), (b"x-tenant-id", b"t")]
    await app({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)
    assert statuses == [200, 0]


@contextmanager
def left_behind() -> Iterator[Counter[str]]:
    """Gives, at the end, how many things of each type only the garbage collector could free."""
    left: Counter[str] = Counter()
    while gc.collect():
        pass
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield left
        gc.collect()
        left.update(type(thing).__qualname__ for thing in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def requests() -> None:
    """New keys, then replays, after some that filled all caches; twice, since a thread of others may end meanwhile."""
    manager = BackgroundOperationsManager(MemoryStorage())
    app = BackgroundOperationsMiddleware(app_of(lambda _scope, _body, send: answer(send, 200, {})), manager)
    rounds: list[Counter[str]] = []
    async with manager:
        await request(app, "warm")
        await request(app, "warm")
        for rehearsal in ("first", "second"):
            with left_behind() as left:
                for number in range(REQUESTS):
                    await request(app, f"{rehearsal}-{number}")
                    await request(app, f"{rehearsal}-{number}")
            rounds.append(left)
    both = rounds[0] & rounds[1]
    assert {name: count for name, count in both.items() if count >= REQUESTS} == {}


async def test_under_trio(autojump_clock: MockClock) -> None:
    await requests()


def test_under_asyncio_with_the_runtime_behind_the_bridge() -> None:
    run_asyncio(requests)
