"""What a saga is asked to do: the part of its journal that never changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..models import StepKind
from ..retry import COMPENSATION_RETRY, RetryPolicy


class StepDefinition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One step as it was asked for.

    Attributes:
        parameters: JSON; may hold ``{"$ref": "steps.<name>.result.<field>"}`` to an earlier step.
        compensation_parameters: The same, and may also refer to the step's own result.
        timeout_seconds: For one attempt, counted from its start or its last heartbeat; None: no limit.
        lock: Template of the lock that the handlers run under (see `lock_names`); None: none.
    """

    name: str
    operation: str
    parameters: dict[str, Any] = {}
    kind: StepKind = StepKind.COMPENSATABLE
    compensation_operation: str | None = None
    compensation_parameters: dict[str, Any] = {}
    retry: RetryPolicy = RetryPolicy()
    compensation_retry: RetryPolicy = COMPENSATION_RETRY
    timeout_seconds: float | None = None
    compensation_timeout_seconds: float | None = None
    lock: str | None = None


class SagaDefinition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One saga as it was asked for.

    Attributes:
        timeout_seconds: Deadline of the forward part, counted from the saga's start; None: no limit.
        priority: Higher is adopted first when work is taken over.
        metadata: Short strings that travel with the saga (trace context, labels); never interpreted here.
    """

    saga_id: str
    tenant_id: str
    workflow_type: str
    steps: tuple[StepDefinition, ...]
    timeout_seconds: float | None = None
    idempotency_key: str | None = None
    priority: int = 0
    metadata: dict[str, str] = {}


decode_definition: Callable[[bytes], SagaDefinition] = msgspec.json.Decoder(SagaDefinition).decode
"""A definition as it reads back from its JSON."""
