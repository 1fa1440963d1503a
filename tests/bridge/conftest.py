from collections.abc import Iterator

import pytest

from bridge.hosts import no_thread_left


@pytest.fixture(autouse=True)
def _no_runtime_thread_left() -> Iterator[None]:
    with no_thread_left():
        yield
