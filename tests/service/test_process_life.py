"""The life of a service process, inside of this one: what is hard to bring about from outside."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage
from dotmac.tasks.runtime.janitor import Janitor
from dotmac.tasks.service.access import Access
from dotmac.tasks.service.app import create_app
from dotmac.tasks.service.exits import DRAINED, FAILED
from dotmac.tasks.service.process import Front, run_process
from service.house import PATIENCE


@pytest.mark.parametrize("http", [False, True])
async def test_a_runtime_that_fails_ends_the_process_with_an_error(
    http: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manager = BackgroundOperationsManager(storage=MemoryStorage())

    async def broken(_janitor: Janitor) -> None:
        await trio.sleep(0.05)
        raise RuntimeError("the broom is gone")

    monkeypatch.setattr(Janitor, "run", broken)
    front = Front(create_app(manager, access=Access()), ["127.0.0.1:0"]) if http else None
    with trio.fail_after(PATIENCE):
        assert await run_process(manager, front) == FAILED
    assert "failed: " in caplog.text
    assert not manager.is_running


async def test_a_start_that_takes_long_is_given_up_at_a_signal() -> None:
    class Slow(MemoryStorage):
        @asynccontextmanager
        async def opened(self) -> AsyncIterator[None]:
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep(3600)
            yield

    with trio.fail_after(PATIENCE):
        assert await run_process(BackgroundOperationsManager(storage=Slow())) == DRAINED
