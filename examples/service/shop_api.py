"""A FastAPI application that submits orders and answers at once; workers elsewhere carry them out.

Run it with ``hypercorn -k trio shop_api:app``. Its manager does
not work (`works=False`), so that slow steps never share a process with requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Header
from pydantic import BaseModel
from shop import order

from dotmac.tasks import BackgroundOperationsManager

manager = BackgroundOperationsManager(works=False)


class Order(BaseModel):
    """What customers send."""

    article: str
    pieces: int
    cents: int


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Be connected while the application runs."""
    async with manager:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def place(wanted: Order, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
    """Take the order. The same key gives the same order."""
    steps = order(wanted.article, wanted.pieces, wanted.cents)
    saga = await manager.start_saga(
        tenant_id="shop", workflow_type="order", steps=steps, idempotency_key=idempotency_key
    )
    return {"order": saga.saga_id}


@app.get("/orders/{saga_id}")
async def look(saga_id: str) -> dict[str, str]:
    """How it stands."""
    return {"status": await manager.saga_handle(saga_id).status()}
