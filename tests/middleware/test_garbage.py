"""A request leaves nothing behind that only the garbage collector can free: its runs would cost every request."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from trio.testing import MockClock

from dotmac.tasks import BackgroundOperationsManager, BackgroundOperationsMiddleware, MemoryStorage
from middleware.apps import answer, app_of
from middleware.asgi_client import Client

REQUESTS = 10


@contextmanager
def nothing_left() -> Iterator[None]:
    """What is done inside leaves no reference cycle, save what is left once and not each time."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
        gc.collect()
        left = Counter(type(thing).__qualname__ for thing in gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert {name: count for name, count in left.items() if count >= REQUESTS} == {}


async def requests(send: Callable[[str], Awaitable[int]]) -> None:
    """New keys, then replays, after some that filled all caches."""
    await send("warm")
    await send("warm")
    with nothing_left():
        for number in range(REQUESTS):
            assert await send(str(number)) == 200
            assert await send(str(number)) == 200


def an_app() -> tuple[BackgroundOperationsManager, BackgroundOperationsMiddleware]:
    manager = BackgroundOperationsManager(MemoryStorage())
    return manager, BackgroundOperationsMiddleware(app_of(lambda _scope, _body, send: answer(send, 200, {})), manager)


async def test_under_trio(autojump_clock: MockClock) -> None:
    manager, app = an_app()
    client = Client(app)

    async def send(key: str) -> int:
        return (await client.post(key=key)).status

    async with manager:
        await requests(send)
