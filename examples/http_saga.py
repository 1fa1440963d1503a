"""One payment, however often it is sent: a request starts a saga under its key, and its repetitions attach to it.

The app is plain ASGI here, and the client calls it directly. In FastAPI or Starlette the handler is the body of a
route; see docs/http.md.
"""

from __future__ import annotations

import json
from typing import Any

import trio

from dotmac.tasks import (
    BackgroundOperationsManager,
    BackgroundOperationsMiddleware,
    IdempotencyOptions,
    MemoryStorage,
    start_saga_for_request,
)

manager = BackgroundOperationsManager(storage=MemoryStorage())
charges: list[int] = []


@manager.register_operation_handler("charge")
async def charge(parameters: dict[str, Any]) -> dict[str, Any]:
    await trio.sleep(0.1)  # the payment service takes its time
    charges.append(parameters["cents"])
    return {"charge": f"ch_{len(charges)}"}


async def pay(scope: Any, receive: Any, send: Any) -> None:
    cents = json.loads((await receive())["body"])["cents"]
    steps = [{"name": "charge", "operation": "charge", "parameters": {"cents": cents}}]
    started = await start_saga_for_request(scope, "payment", steps)
    response = await started.response()
    await response(scope, receive, send)


app = BackgroundOperationsMiddleware(pay, manager, options=IdempotencyOptions(in_flight="wait"))


async def post(key: str, document: Any) -> tuple[int, Any, bool]:
    """Status, document, and whether the response was made for another request."""
    headers = [(b"idempotency-key", key.encode()), (b"x-tenant-id", b"shop")]
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(document).encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "path": "/payments", "headers": headers}, receive, send)
    marked = (b"idempotency-replayed", b"true") in list(sent[0]["headers"])
    return sent[0]["status"], json.loads(sent[1]["body"]), marked


async def main() -> None:
    answers: list[tuple[int, Any, bool]] = []

    async def client() -> None:
        answers.append(await post("order-17", {"cents": 4200}))

    async with manager:
        async with trio.open_nursery() as clients:
            for _ in range(5):  # an impatient one
                clients.start_soon(client)
        results = [document["results"] for _, document, _ in answers]
        print(f"{len(answers)} requests, {len(charges)} charge, {sum(marked for _, _, marked in answers)} repetitions")
        print(f"everybody got {results[0]}: {all(result == results[0] for result in results)}")
        status, problem, _ = await post("order-17", {"cents": 1})
        print(f"another amount under that key: {status} {problem['title']}")


if __name__ == "__main__":
    trio.run(main)
