"""The sagas of the demo and the handlers that run them.

A process that is to run these sagas calls `register_handlers` and needs nothing else of the demo. Trouble is part of
a step's parameters, so the same handlers succeed, stumble or refuse as each saga wants it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import trio

from ..errors import NonRetryableError
from ..manager import BackgroundOperationsManager
from ..runtime.context import HandlerContext
from .ledger import Ledger

TENANT = "demo"

_OPERATIONS = ("create_user", "send_email", "open_mailbox", "reserve_stock", "charge_card", "book_courier", "ship")
_COMPENSATIONS = ("delete_user", "close_mailbox", "release_stock", "refund_card")


class ServiceBusy(Exception):
    """The service is busy: nothing was done, and trying again helps."""


@dataclass(frozen=True, slots=True)
class DemoSaga:
    """What to pass to `start_saga`."""

    workflow_type: str
    steps: list[dict[str, Any]]


def onboarding() -> DemoSaga:
    """Succeeds; the mail server is busy at the first try."""
    return DemoSaga(
        "user_onboarding",
        [
            {
                "name": "Create User Account",
                "operation": "create_user",
                "parameters": {"username": "testuser", "email": "test@example.com"},
                "compensation_operation": "delete_user",
            },
            {
                "name": "Open Mailbox",
                "operation": "open_mailbox",
                "parameters": {"user": {"$ref": "steps.Create User Account.result.id"}, "busy_for": 1},
                "compensation_operation": "close_mailbox",
                "retry": {"max_retries": 3, "initial_delay": 0.8, "jitter": False},
            },
            {
                "name": "Send Welcome Email",
                "operation": "send_email",
                "parameters": {"to": "test@example.com", "template": "welcome"},
            },
        ],
    )


def order_without_courier() -> DemoSaga:
    """Its third step is refused for good, so the first two are undone; the refund needs a second try."""
    return DemoSaga(
        "order",
        [
            {
                "name": "Reserve Stock",
                "operation": "reserve_stock",
                "parameters": {"sku": "lamp", "quantity": 2},
                "compensation_operation": "release_stock",
            },
            {
                "name": "Charge Card",
                "operation": "charge_card",
                "parameters": {"cents": 4200},
                "compensation_operation": "refund_card",
                "compensation_parameters": {"charge": {"$ref": "steps.Charge Card.result.id"}, "busy_for": 1},
                "compensation_retry": {"max_retries": 10, "initial_delay": 0.8, "jitter": False},
            },
            {
                "name": "Book Courier",
                "operation": "book_courier",
                "parameters": {"to": "an island", "refused": "no courier goes there"},
            },
        ],
    )


def order_interrupted(confirmation: float) -> DemoSaga:
    """Its charge happens at once, but the answer takes `confirmation` seconds: time enough to lose the runtime."""
    return DemoSaga(
        "order",
        [
            {
                "name": "Reserve Stock",
                "operation": "reserve_stock",
                "parameters": {"sku": "lamp", "quantity": 1},
                "compensation_operation": "release_stock",
            },
            {
                "name": "Charge Card",
                "operation": "charge_card",
                "parameters": {"cents": 2100, "confirmation": confirmation},
                "compensation_operation": "refund_card",
                "retry": {"max_retries": 3, "initial_delay": 0.5, "jitter": False},
            },
            {
                "name": "Ship",
                "operation": "ship",
                "parameters": {"charge": {"$ref": "steps.Charge Card.result.id"}},
            },
        ],
    )


def register_handlers(manager: BackgroundOperationsManager, ledger: Ledger, pace: float) -> None:
    """Make `manager` able to run the sagas of this module.

    Args:
        manager: Gets the handlers.
        ledger: The service that the handlers call.
        pace: Seconds that each attempt takes, so that it can be watched.
    """

    async def handler(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
        await trio.sleep(pace)
        if context.attempt <= parameters.get("busy_for", 0):
            raise ServiceBusy("the service is busy, try again")
        if "refused" in parameters:
            raise NonRetryableError(parameters["refused"])
        # The token makes a second call harmless. Between the effect and the journal lies only what follows here.
        entry = ledger.request(context.operation_type, context.token, context.fence)
        if entry.performed:
            await trio.sleep(parameters.get("confirmation", 0))
        return {"id": entry.token}

    for name in _OPERATIONS:
        manager.register_operation_handler(name, handler)
    for name in _COMPENSATIONS:
        manager.register_compensation_handler(name, handler)
