"""Servers for tests that take them away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import Server, standalone


@pytest.fixture
def binary() -> Path | None:
    """The server to test on: ``TEST_SERVER_BINARY``, or the one that the embedded storage would use."""
    chosen = os.environ.get("TEST_SERVER_BINARY")
    return Path(chosen) if chosen else None


@pytest.fixture
def server(binary: Path | None) -> Iterator[Server]:
    """A server for one test, which may break it; what was acknowledged survives a kill."""
    with standalone("appendonly yes", "appendfsync always", "enable-debug-command yes", binary=binary) as one:
        yield one
