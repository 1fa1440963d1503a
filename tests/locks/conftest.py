"""Managers on one memory storage, each with a wire of its own; and servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from uuid import uuid4

import pytest

from dotmac.tasks import MemoryStorage
from dotmac.tasks.storage.redis import RedisStorage
from locks.virtual_time import in_virtual_time
from runtime.nodes import Node
from support.servers import Server, standalone


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests with processes within one run in virtual time, and so do the fixtures that start those."""
    if isinstance(item, pytest.Function) and "node" in item.fixturenames:
        item.add_marker(pytest.mark.trio(run=in_virtual_time), append=False)


@pytest.fixture
def shared() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
async def node(shared: MemoryStorage) -> AsyncIterator[Node]:
    """A running process, in virtual time."""
    async with Node(shared, lambda _: None) as node:
        yield node


@pytest.fixture
async def other(shared: MemoryStorage) -> AsyncIterator[Node]:
    """Another one on the same storage."""
    async with Node(shared, lambda _: None) as node:
        yield node


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with standalone(aof=True) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid4().hex[:8]}"


@pytest.fixture
def storage_of(prefix: str) -> Callable[..., RedisStorage]:
    """Makes storages in one namespace, each with connections of its own."""
    return lambda url, **options: RedisStorage(url, prefix=prefix, partitions=1, **options)
