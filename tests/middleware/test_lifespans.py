"""The manager's life in an app: the middleware starts it and stops it, unless the app's own lifespan does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from dotmac.tasks import (
    AlreadyStarted,
    BackgroundOperationsManager,
    MemoryStorage,
    add_background_operations_middleware,
)

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[None]:
    """What a server does before the first request, and after the last."""
    to_app, from_server = anyio.create_memory_object_stream[dict[str, Any]](1)
    to_server, from_app = anyio.create_memory_object_stream[Any](1)
    async with to_app, from_server, to_server, from_app, anyio.create_task_group() as tasks:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        tasks.start_soon(app, scope, from_server.receive, to_server.send)
        await to_app.send({"type": "lifespan.startup"})
        assert await from_app.receive() == {"type": "lifespan.startup.complete"}
        yield
        await to_app.send({"type": "lifespan.shutdown"})
        assert await from_app.receive() == {"type": "lifespan.shutdown.complete"}


def run(backend: str, lifespan_of: Callable[[BackgroundOperationsManager], Lifespan]) -> None:
    async def program() -> None:
        manager = BackgroundOperationsManager(MemoryStorage())
        app = Starlette(lifespan=lifespan_of(manager))
        add_background_operations_middleware(app, manager)
        for _ in range(2):  # a test suite does that
            async with served(app):
                assert await manager.list_locks() == []
                with pytest.raises(AlreadyStarted):
                    await manager.start()
            assert not manager.is_running

    anyio.run(program, backend=backend)


@BACKENDS
def test_an_app_uses_the_manager_from_its_startup_to_its_shutdown(backend: str) -> None:
    def lifespan_of(manager: BackgroundOperationsManager) -> Lifespan:
        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            assert await manager.list_locks() == []
            yield
            assert await manager.list_locks() == []

        return lifespan

    run(backend, lifespan_of)


@BACKENDS
def test_an_app_runs_the_manager_in_its_own_lifespan(backend: str) -> None:
    def lifespan_of(manager: BackgroundOperationsManager) -> Lifespan:
        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            async with manager:
                yield
            assert not manager.is_running  # it is stopped where the app says so

        return lifespan

    run(backend, lifespan_of)


@BACKENDS
def test_an_app_starts_and_stops_the_manager_in_its_own_lifespan(backend: str) -> None:
    def lifespan_of(manager: BackgroundOperationsManager) -> Lifespan:
        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            await manager.start()
            yield
            assert manager.is_running
            await manager.stop()

        return lifespan

    run(backend, lifespan_of)
