"""A saga past its point of no return gets stuck and is parked; an operator mends the cause and lets it go on."""

from __future__ import annotations

from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, OperationStatus

printer = {"has_paper": False}
payments: list[int] = []
manager = BackgroundOperationsManager(storage=MemoryStorage())


async def pay(parameters: dict[str, Any]) -> dict[str, Any]:
    payments.append(parameters["cents"])
    return {"paid": parameters["cents"]}


async def print_ticket(parameters: dict[str, Any]) -> dict[str, Any]:
    if not printer["has_paper"]:
        raise RuntimeError("the printer is out of paper")
    return {"ticket": f"paid {parameters['paid']}"}


STEPS: list[dict[str, Any]] = [
    {"name": "Payment", "kind": "pivot", "operation": "pay", "parameters": {"cents": 900}},
    {
        "name": "Ticket",
        "kind": "retriable",
        "operation": "print_ticket",
        "parameters": {"paid": {"$ref": "steps.Payment.result.paid"}},
        "retry": {"max_retries": 2, "initial_delay": 0.01},
    },
]


async def main() -> None:
    manager.register_operation_handler("pay", pay)
    manager.register_operation_handler("print_ticket", print_ticket)
    async with manager:
        handle = await manager.start_saga(tenant_id="tenant1", workflow_type="ticket", steps=STEPS)
        print((await handle.result()).status)

        # What an operator sees, and does.
        for summary in (await manager.list_sagas(status=OperationStatus.FAILED)).sagas:
            saga = await manager.get_saga(summary.saga_id)
            print("open:", *saga.open_items)
            printer["has_paper"] = True
            await manager.retry_saga(saga.saga_id, reason="paper was refilled")

        outcome = await handle.result()
        print(outcome.status, outcome.results["Ticket"])
        print(f"payments made: {len(payments)}")


if __name__ == "__main__":
    trio.run(main)
