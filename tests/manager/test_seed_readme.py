"""The seed's README, as its users knew it: its snippets run as they stand, its names and arguments exist."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import fields
from typing import Any

import pytest
import trio

from dotmac import tasks
from dotmac.tasks import BackgroundOperationsManager, IdempotencyKey, MemoryStorage, OperationStatus, SagaWorkflow
from dotmac.tasks.metrics import register_metrics_hooks

BASIC_USAGE = """
from dotmac.tasks import BackgroundOperationsManager, MemoryStorage

# Create manager with in-memory storage
storage = MemoryStorage()
manager = BackgroundOperationsManager(storage=storage)
await manager.start()

# Create an idempotency key
key = await manager.create_idempotency_key(
    tenant_id="tenant1",
    user_id="user1",\x20
    operation_type="send_email",
    parameters={"to": "user@example.com", "subject": "Welcome"}
)

# Complete the operation
result = {"message_id": "123", "status": "sent"}
await manager.complete_idempotent_operation(key.key, result)
"""

SAGA_WORKFLOWS = """
# Register operation handlers
async def send_email_handler(params):
    # Send email logic
    return {"message_id": "123", "status": "sent"}

async def create_user_handler(params):
    # Create user logic
    return {"user_id": "456", "status": "created"}

async def email_compensation_handler(params):
    # Cancel email logic
    pass

manager.register_operation_handler("send_email", send_email_handler)
manager.register_operation_handler("create_user", create_user_handler)
manager.register_compensation_handler("send_email", email_compensation_handler)

# Create saga workflow
steps = [
    {
        "name": "Create User Account",
        "operation": "create_user",
        "parameters": {"username": "testuser", "email": "test@example.com"},
        "compensation_operation": "send_email",
        "compensation_parameters": {"to": "test@example.com", "template": "cancelled"},
        "max_retries": 3
    },
    {
        "name": "Send Welcome Email",\x20
        "operation": "send_email",
        "parameters": {"to": "test@example.com", "template": "welcome"}
    }
]

saga = await manager.create_saga_workflow(
    tenant_id="tenant1",
    workflow_type="user_onboarding",
    steps=steps
)

# Execute saga
success = await manager.execute_saga_workflow(saga.saga_id)
"""

OBSERVABILITY = """
from dotmac.tasks.metrics import register_metrics_hooks

def my_counter_hook(operation_type, tenant_id):
    # Your metrics logic
    pass

register_metrics_hooks(
    idempotency_key_created_hook=my_counter_hook,
    saga_step_completed_hook=my_counter_hook,
    # ... other hooks
)
"""


def as_main(*snippets: str) -> Any:
    """The snippets as the body of one async function that gives its local names."""
    body = textwrap.indent("\n".join(snippets), "    ")
    namespace: dict[str, Any] = {}
    exec(f"async def main():\n{body}\n    return locals()", namespace)  # noqa: S102 - runs the README's own code
    return namespace["main"]


def test_basic_usage_and_saga_workflows_run_as_they_stand() -> None:
    names = trio.run(as_main(BASIC_USAGE, SAGA_WORKFLOWS, "await manager.stop()"))
    assert names["success"] is True
    assert names["key"].status is OperationStatus.PENDING


def test_the_metrics_snippet_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []

    def register(**hooks: Any) -> None:
        registered.append(register_metrics_hooks(**hooks))

    monkeypatch.setattr("dotmac.tasks.metrics.register_metrics_hooks", register)
    trio.run(as_main(OBSERVABILITY))
    (unregister,) = registered
    unregister()


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("create_idempotency_key", "tenant_id, user_id, operation_type, key=None, parameters=None, ttl=None"),
        ("check_idempotency", "key"),
        ("complete_idempotent_operation", "key, result, error=None"),
        ("create_saga_workflow", "tenant_id, workflow_type, steps, idempotency_key=None"),
        ("execute_saga_workflow", "saga_id"),
        ("register_operation_handler", "operation_type, handler"),
        ("register_compensation_handler", "operation_type, handler"),
    ],
)
def test_each_method_of_the_reference_takes_its_arguments(method: str, arguments: str) -> None:
    signature = inspect.signature(getattr(BackgroundOperationsManager, method))
    wanted = [argument.partition("=")[0] for argument in arguments.split(", ")]
    positional = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["self", *wanted]
    for argument in arguments.split(", "):
        name, _, default = argument.partition("=")
        if default:
            assert signature.parameters[name].default is None


def test_each_storage_method_of_the_reference_takes_its_arguments() -> None:
    for method, arguments in {
        "set_idempotency": ["key", "data", "ttl"],
        "get_idempotency": ["key"],
        "delete_idempotency": ["key"],
        "set_saga": ["saga_id", "data"],
        "get_saga": ["saga_id"],
        "append_saga_history": ["saga_id", "entry"],
        "acquire_lock": ["key", "timeout_seconds"],
        "release_lock": ["key"],
    }.items():
        for where in (MemoryStorage, tasks.StorageProtocol):
            assert list(inspect.signature(getattr(where, method)).parameters) == ["self", *arguments]


def test_the_models_have_the_fields_of_the_reference() -> None:
    assert [field.name for field in fields(IdempotencyKey)] == [
        "key", "tenant_id", "user_id", "operation_type", "created_at", "expires_at", "status", "result", "error",
        "parameters",
    ]  # fmt: skip
    wanted = {
        "saga_id", "tenant_id", "workflow_type", "steps", "status", "current_step", "created_at", "updated_at",
        "timeout_seconds", "idempotency_key",
    }  # fmt: skip
    assert wanted <= {field.name for field in fields(SagaWorkflow)}
