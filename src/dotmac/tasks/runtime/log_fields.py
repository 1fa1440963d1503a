"""What a log record says beside its text, so that logs can be searched: the fields of its ``extra``."""

from __future__ import annotations

from ..saga.definition import SagaDefinition
from .context import HandlerContext


def saga_fields(definition: SagaDefinition, step: str | None = None) -> dict[str, str]:
    """``saga_id``, ``tenant_id``, ``workflow_type`` and, where one is concerned, ``step``."""
    fields = {
        "saga_id": definition.saga_id,
        "tenant_id": definition.tenant_id,
        "workflow_type": definition.workflow_type,
    }
    return fields if step is None else {**fields, "step": step}


def attempt_fields(context: HandlerContext) -> dict[str, str]:
    """The same for an attempt, as far as it is one of a saga's step."""
    fields = {
        "saga_id": context.saga_id,
        "tenant_id": context.tenant_id,
        "workflow_type": context.workflow_type,
        "step": context.step,
    }
    return {name: value for name, value in fields.items() if value is not None}
