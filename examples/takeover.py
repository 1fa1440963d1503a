"""A worker is lost in the middle of a step; another one goes on, with the same token and a higher fence."""

from __future__ import annotations

from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager, HandlerContext, MemoryStorage

charges: dict[str, int] = {}
"""What the payment service did, by token: a token that it knows does nothing again."""

fences: list[int] = []
"""Of the attempts that the payment service saw: it can refuse an attempt with a lower one."""

charged = trio.Event()


async def charge(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    highest = all(fence < context.fence for fence in fences)
    print(f"attempt {context.attempt}, highest fence: {highest}, token known: {context.token in charges}")
    fences.append(context.fence)
    charges.setdefault(context.token, parameters["cents"])
    if context.attempt == 1:
        charged.set()
        await trio.sleep_forever()  # the answer never comes: the worker is lost before it could write anything down
    return {"cents": charges[context.token]}


def new_worker(storage: MemoryStorage) -> BackgroundOperationsManager:
    manager = BackgroundOperationsManager(storage=storage, worker_lease=1.0, poll_interval=0.1)
    manager.register_operation_handler("charge", charge)
    return manager


async def lose(manager: BackgroundOperationsManager) -> None:
    """End a manager as a crash would: without a drain, and without giving its lease back."""
    with trio.CancelScope() as at_once:
        at_once.cancel()
        await manager.stop()


async def main() -> None:
    storage = MemoryStorage()
    first = new_worker(storage)
    await first.start()
    async with new_worker(storage) as second:
        handle = await first.start_saga(
            tenant_id="tenant1",
            workflow_type="order",
            steps=[{"name": "Charge", "operation": "charge", "parameters": {"cents": 4200}}],
        )
        await charged.wait()
        await lose(first)
        print("the first worker is lost")
        outcome = await second.saga_handle(handle.saga_id).result()
        print(f"{outcome.status} with {outcome.results['Charge']}; charges made: {len(charges)}")


if __name__ == "__main__":
    trio.run(main)
