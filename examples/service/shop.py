"""The sagas of a shop: what `dotmac-tasks serve shop:manager` and `dotmac-tasks worker shop:manager` run.

Where everything is kept comes from REDIS_URL (or --redis).
"""

from __future__ import annotations

from typing import Any

from dotmac.tasks import BackgroundOperationsManager, HandlerContext, NonRetryableError

manager = BackgroundOperationsManager()


@manager.register_operation_handler("reserve")
async def reserve(parameters: dict[str, Any]) -> dict[str, Any]:
    """Set goods aside."""
    if parameters["pieces"] > 100:
        raise NonRetryableError("there are 100 of them")
    return {"reservation": f"r-{parameters['article']}"}


@manager.register_compensation_handler("release")
async def release(parameters: dict[str, Any]) -> None:
    """Give the goods back; bears to be called twice, and for goods that were never set aside."""


@manager.register_operation_handler("charge")
async def charge(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    """Take the money; the token makes the payment service see a repetition."""
    return {"charge": context.token, "cents": parameters["cents"]}


@manager.register_operation_handler("ship")
async def ship(parameters: dict[str, Any]) -> None:
    """Send the parcel."""


def order(article: str, pieces: int, cents: int) -> list[dict[str, Any]]:
    """The steps of an order."""
    return [
        {
            "name": "Reserve",
            "operation": "reserve",
            "parameters": {"article": article, "pieces": pieces},
            "compensation_operation": "release",
            "compensation_parameters": {"reservation": {"$ref": "steps.Reserve.result.reservation"}},
        },
        {"name": "Charge", "operation": "charge", "kind": "pivot", "parameters": {"cents": cents}},
        {"name": "Ship", "operation": "ship", "kind": "retriable", "max_retries": 50},
    ]
