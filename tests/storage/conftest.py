"""The backends that the contract suite runs on.

A further one is one more `Offer` in `OFFERS`. Nothing in the suite knows which backend it has; time passes by
`let_time_pass`, in units of `tick`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
from trio.abc import Clock, Instrument
from trio.testing import MockClock

from dotmac.tasks.storage.memory import MemoryStorage
from dotmac.tasks.storage.protocol import StorageProtocol
from dotmac.tasks.storage.redis import RedisStorage
from storage.stored import Backend
from support.servers import DEBIAN_REDIS, needs_debian_redis, standalone


@dataclass(frozen=True)
class Offer:
    """A backend that can be had.

    Attributes:
        name: Its id in the names of the tests.
        serving: Starts what it needs (a server, say) for a session of tests, and ends it.
        run: Runs an async test as `trio.run` does; with a virtual clock, where time may be one.
        marks: What its tests are marked with besides, such as ``pytest.mark.redis``.
    """

    name: str
    serving: Callable[[], AbstractContextManager[Backend]]
    run: Callable[..., Any] = trio.run
    marks: tuple[pytest.MarkDecorator, ...] = ()


def _run_in_virtual_time(
    main: Callable[[], Awaitable[Any]], *, clock: Clock | None = None, instruments: Sequence[Instrument] = ()
) -> Any:
    return trio.run(main, clock=clock or MockClock(autojump_threshold=0), instruments=instruments)


@contextmanager
def _memory() -> Iterator[Backend]:
    yield Backend(tick=1.0, make=MemoryStorage, run=_run_in_virtual_time, examples=300)


@contextmanager
def _redis(binary: Path | None) -> Iterator[Backend]:
    with standalone(binary=binary, aof=True) as server:
        # Every storage in a namespace of its own is every storage on empty data.
        yield Backend(tick=0.2, make=lambda: RedisStorage(server.url, prefix=f"test-{uuid4().hex[:8]}"), examples=15)


OFFERS = [
    Offer("memory", _memory, run=_run_in_virtual_time),
    Offer("valkey", partial(_redis, None), marks=(pytest.mark.redis,)),
    Offer("redis", partial(_redis, DEBIAN_REDIS), marks=(pytest.mark.redis, needs_debian_redis)),
]


@pytest.fixture(
    scope="session",
    params=[pytest.param(each, id=each.name, marks=(pytest.mark.trio(run=each.run), *each.marks)) for each in OFFERS],
)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The backend under test."""
    with request.param.serving() as backend:
        yield backend


@pytest.fixture(scope="session", params=[pytest.param(each, id=each.name, marks=each.marks) for each in OFFERS])
def bare_backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """The backend for a plain test, which runs trio itself."""
    with request.param.serving() as backend:
        yield backend


@pytest.fixture
def tick(backend: Backend) -> float:
    """The unit of time of a test, in seconds: a lease of one tick is over after two."""
    return backend.tick


@pytest.fixture
async def storage(backend: Backend) -> AsyncIterator[StorageProtocol]:
    """An open, empty storage."""
    storage = backend.make()
    async with storage.opened():
        yield storage
