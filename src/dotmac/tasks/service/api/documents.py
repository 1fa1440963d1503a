"""What goes in and comes out beside the package's own models, as structs: the OpenAPI document is made from them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ...models import IdempotencyKey, LockInfo, SagaHistoryEntry, WorkerInfo
from ...retry import RetryPolicy


class StepInput(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One step of a saga to be started; see the saga guide for what each field means."""

    name: str
    operation: str
    parameters: dict[str, Any] | None = None
    kind: Literal["compensatable", "pivot", "retriable"] = "compensatable"
    compensation_operation: str | None = None
    compensation_parameters: dict[str, Any] | None = None
    max_retries: int | None = None
    retry: RetryPolicy | None = None
    compensation_retry: RetryPolicy | None = None
    timeout_seconds: float | None = None
    compensation_timeout_seconds: float | None = None
    lock: str | None = None


class SagaInput(msgspec.Struct, forbid_unknown_fields=True):
    """A saga to be started."""

    tenant_id: str
    workflow_type: str
    steps: list[dict[str, Any]]
    timeout_seconds: float | None = None
    priority: int = 0
    metadata: dict[str, str] = {}


class StartedSaga(msgspec.Struct):
    """The saga that was started, or that the idempotency key stands for."""

    saga_id: str
    url: str


class Steering(msgspec.Struct, forbid_unknown_fields=True):
    """Why an operator steps in; it is written into the saga's history."""

    reason: str = ""


class SteeredSaga(msgspec.Struct):
    """The request is stored, and the saga will follow it."""

    saga_id: str
    url: str


class History(msgspec.Struct):
    """Everything that happened to a saga, oldest first."""

    entries: list[SagaHistoryEntry]


class Locks(msgspec.Struct):
    """Locks that are held at the moment, by name."""

    locks: list[LockInfo]


class Workers(msgspec.Struct):
    """The runtime processes that share the storage."""

    workers: list[WorkerInfo]


class Operation(msgspec.Struct):
    """One idempotency record."""

    operation: IdempotencyKey


class Liveness(msgspec.Struct):
    """This process answers."""

    status: Literal["alive"]
    version: str


class StorageState(msgspec.Struct, omit_defaults=True):
    """How the storage answered just now.

    Attributes:
        seconds: How long it took; absent if it did not answer.
        problem: Why it cannot be used; absent if it can.
    """

    state: Literal["ok", "unavailable"]
    seconds: float | None = None
    problem: str | None = None


class Readiness(msgspec.Struct):
    """Whether this process takes work."""

    status: Literal["ready", "unavailable", "stopping"]
    storage: StorageState


class ProblemDocument(msgspec.Struct, omit_defaults=True):
    """RFC 9457. `field` names what is wrong in the request, where something is."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
