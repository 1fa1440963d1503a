"""Many callers ask for one charge at the same time: it is made once, and all of them get its result."""

from __future__ import annotations

from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager, HandlerContext, IdempotencyMismatch, MemoryStorage

charges: list[str] = []
manager = BackgroundOperationsManager(storage=MemoryStorage())


@manager.idempotent("charge_card", ttl=24 * 3600)
async def charge_card(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    await trio.sleep(0.05)  # the payment service takes its time; it would be given context.token
    charges.append(context.token)
    return {"charge": len(charges), "cents": parameters["cents"]}


async def main() -> None:
    results: list[Any] = []

    async def client() -> None:
        results.append(await charge_card({"cents": 4200}, tenant_id="shop", user_id="ada", key="order-17"))

    async with manager:
        async with trio.open_nursery() as clients:
            for _ in range(10):
                clients.start_soon(client)
        print(f"{len(results)} callers, {len(charges)} charge")
        print(f"everybody got {results[0]}: {all(result == results[0] for result in results)}")
        try:
            await charge_card({"cents": 1}, tenant_id="shop", user_id="ada", key="order-17")
        except IdempotencyMismatch as error:
            print(f"refused: {error}")


if __name__ == "__main__":
    trio.run(main)
