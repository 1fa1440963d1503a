"""The application that the processes of these tests run: it does what files in its working directory allow."""

from __future__ import annotations

from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager, HandlerContext, NonRetryableError

manager = BackgroundOperationsManager(worker_lease=2.0, poll_interval=0.2, drain_timeout=60)


@manager.register_operation_handler("charge")
async def charge(parameters: dict[str, Any], context: HandlerContext) -> str:
    """Waits for the file that it is told to wait for."""
    if gate := parameters.get("gate"):
        await trio.Path(f"{gate}.reached-{context.attempt}").touch()
        while not await trio.Path(gate).exists():  # noqa: ASYNC110 - it is another process that makes it
            await trio.sleep(0.02)
    return context.token


@manager.register_compensation_handler("refund")
async def refund(_parameters: dict[str, Any]) -> None:
    """Nothing to do."""


@manager.register_operation_handler("ship")
async def ship(parameters: dict[str, Any]) -> None:
    """Fails until the file that it is told of exists."""
    if (carrier := parameters.get("carrier")) and not await trio.Path(carrier).exists():
        raise NonRetryableError("no carrier")
