"""Servers and clients for the tests of the wire: every test that can runs on both hosts of the asyncio loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.servers import Server, standalone


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """A server for tests that do not break it; emptied by none, so each test takes keys of its own."""
    with standalone() as server:
        yield server


@pytest.fixture
def server() -> Iterator[Server]:
    """A server for one test, which may break it; what was acknowledged survives a kill."""
    with standalone("appendonly yes", "appendfsync always", "enable-debug-command yes") as one:
        yield one


@pytest.fixture(params=["trio-asyncio", "thread"])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)
