"""What goes in and comes out beside the package's own models, as structs: the OpenAPI document is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...models import IdempotencyKey, LockInfo, SagaHistoryEntry, WorkerInfo
from ...retry import RetryPolicy

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]


class StepInput(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One step of a saga to be started; the saga guide says what each field means.

    It describes; what reads steps is the manager.
    """

    name: Name
    operation: Name
    parameters: dict[str, Any] | None = None
    kind: Literal["compensatable", "pivot", "retriable"] = "compensatable"
    compensation_operation: Name | None = None
    compensation_parameters: dict[str, Any] | None = None
    max_retries: Annotated[int, Meta(ge=0)] | None = None
    retry: RetryPolicy | None = None
    compensation_retry: RetryPolicy | None = None
    timeout_seconds: Seconds | None = None
    compensation_timeout_seconds: Seconds | None = None
    lock: str | None = None


class SagaInput(msgspec.Struct, forbid_unknown_fields=True):
    """A saga to be started."""

    tenant_id: Name
    workflow_type: Name
    steps: list[Any]
    timeout_seconds: Seconds | None = None
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    metadata: dict[str, str] = {}


class StartedSaga(msgspec.Struct):
    """The saga that was started, or that the idempotency key stands for."""

    saga_id: str
    url: str


class Steering(msgspec.Struct, forbid_unknown_fields=True):
    """Why an operator steps in; it is written into the saga's history."""

    reason: Annotated[str, Meta(max_length=500)] = ""


class Retrying(Steering, forbid_unknown_fields=True):
    """How a parked saga goes on: with `from_step`, forward again from the step of that name."""

    from_step: Name | None = None


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
    """How the storage answered just now: in how many seconds, or why it cannot be used."""

    state: Literal["ok", "unavailable"]
    seconds: float | None = None
    problem: str | None = None


class Readiness(msgspec.Struct):
    """Whether this process takes work."""

    status: Literal["ready", "unavailable", "stopping"]
    storage: StorageState


class ProblemDocument(msgspec.Struct, omit_defaults=True):
    """What went wrong (RFC 9457). `field` names what is wrong in the request, where something is."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
