"""A user's program, for type checkers: mypy reads it with all the tests, `test_user_types` has pyright read it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request

from dotmac.tasks import (
    BackgroundOperationsManager,
    HandlerContext,
    MemoryStorage,
    StorageProtocol,
    add_background_operations_middleware,
    idempotent_route,
    start_saga_for_request,
)
from dotmac.tasks.storage.redis import RedisStorage

app = FastAPI()
manager = add_background_operations_middleware(app, BackgroundOperationsManager(storage=RedisStorage()))
storages: list[StorageProtocol] = [RedisStorage(), MemoryStorage()]


@manager.register_operation_handler("charge")
async def charge(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    return {"cents": parameters["cents"], "token": context.token}


@app.post("/payments")
@idempotent_route(in_flight="wait")
async def pay(request: Request, cents: int) -> Any:
    steps = [{"name": "charge", "operation": "charge", "parameters": {"cents": cents}}]
    return await (await start_saga_for_request(request, "payment", steps)).response()


async def by_hand() -> int:
    async with BackgroundOperationsManager(storage=MemoryStorage()) as mine, mine.lock("invoice:42") as held:
        return held.fence


async def of_a_storage(storage: RedisStorage) -> dict[str, Any] | None:
    return await storage.get_idempotency("a-key")
