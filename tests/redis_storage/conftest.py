"""A server of their own for the tests of each module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.servers import Server, standalone


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """It writes an append-only file."""
    with standalone(aof=True) as one:
        yield one
