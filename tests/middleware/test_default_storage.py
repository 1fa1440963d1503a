"""An app whose storage nobody chose says at its start that processes do not share it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio

from dotmac.tasks import BackgroundOperationsManager, BackgroundOperationsMiddleware, MemoryStorage
from middleware.apps import answer, app_of
from middleware.asgi_client import Client

TOLD = "everything is in memory and ends with this process; set REDIS_URL"


async def order(_scope: Any, _body: bytes, send: Any) -> None:
    await answer(send, 200, {})


async def lifespan_and_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "lifespan":
        await app_of(order)(scope, receive, send)
        return
    for part in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{part}.complete"})


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.getMessage().startswith(TOLD) for record in caplog.records if record.levelno == logging.WARNING)


@pytest.mark.parametrize("chosen", [True, False])
async def test_a_lifespan_says_once_that_memory_is_not_shared(
    chosen: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    manager = BackgroundOperationsManager(MemoryStorage() if chosen else None)
    app = BackgroundOperationsMiddleware(lifespan_and_app, manager)
    to_app, from_server = trio.open_memory_channel[Any](2)
    for part in ("startup", "shutdown"):
        to_app.send_nowait({"type": f"lifespan.{part}"})

    async def send(_message: Any) -> None:
        await Client(app).post()

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, from_server.receive, send)
    assert warnings(caplog) == (0 if chosen else 1)


async def test_a_host_without_a_lifespan_says_it_at_the_first_request(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    manager = BackgroundOperationsManager()
    app = BackgroundOperationsMiddleware(app_of(order), manager)
    for _ in range(2):
        await Client(app).post()
    await manager.stop()
    assert warnings(caplog) == 1
