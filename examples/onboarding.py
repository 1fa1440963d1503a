"""An onboarding saga: the third step fails for good, so the first two are undone in reverse order."""

from __future__ import annotations

from typing import Any

import trio

from dotmac.tasks import BackgroundOperationsManager, HandlerContext, MemoryStorage, NonRetryableError

users: set[str] = set()
mailboxes: set[str] = set()
manager = BackgroundOperationsManager(storage=MemoryStorage())


async def create_user(parameters: dict[str, Any]) -> dict[str, Any]:
    users.add(parameters["username"])
    print(f"created user {parameters['username']}")
    return {"user_id": parameters["username"]}


async def delete_user(parameters: dict[str, Any]) -> None:
    users.discard(parameters["username"])  # bears that the user was never created
    print(f"deleted user {parameters['username']}")


async def open_mailbox(parameters: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    if context.attempt == 1:
        raise RuntimeError("the mail server is busy")  # tried again by the step's policy
    mailboxes.add(parameters["user_id"])
    print(f"opened mailbox of {parameters['user_id']} at attempt {context.attempt}")
    return {"mailbox": parameters["user_id"]}


async def close_mailbox(parameters: dict[str, Any]) -> None:
    mailboxes.discard(parameters["user_id"])
    print(f"closed mailbox of {parameters['user_id']}")


async def grant_licence(parameters: dict[str, Any]) -> None:
    raise NonRetryableError(f"no licence is left for {parameters['user_id']}")


def onboarding(username: str) -> list[dict[str, Any]]:
    user_id = {"$ref": "steps.Create User Account.result.user_id"}
    return [
        {
            "name": "Create User Account",
            "operation": "create_user",
            "parameters": {"username": username},
            "compensation_operation": "delete_user",
            "compensation_parameters": {"username": username},
        },
        {
            "name": "Open Mailbox",
            "operation": "open_mailbox",
            "parameters": {"user_id": user_id},
            "compensation_operation": "close_mailbox",
            "compensation_parameters": {"user_id": user_id},
        },
        {"name": "Grant Licence", "operation": "grant_licence", "parameters": {"user_id": user_id}},
    ]


async def main() -> None:
    manager.register_operation_handler("create_user", create_user)
    manager.register_compensation_handler("delete_user", delete_user)
    manager.register_operation_handler("open_mailbox", open_mailbox)
    manager.register_compensation_handler("close_mailbox", close_mailbox)
    manager.register_operation_handler("grant_licence", grant_licence)
    async with manager:
        handle = await manager.start_saga(
            tenant_id="tenant1", workflow_type="user_onboarding", steps=onboarding("testuser")
        )
        outcome = await handle.result()
        print(f"{outcome.status}: {outcome.error}")
        print(f"left behind: {len(users)} users, {len(mailboxes)} mailboxes")


if __name__ == "__main__":
    trio.run(main)
