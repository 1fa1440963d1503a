"""What the contract suite stores: small things with telling defaults, and how its time passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

import trio

from dotmac.tasks.models import OperationStatus
from dotmac.tasks.saga.definition import SagaDefinition, StepDefinition
from dotmac.tasks.saga.events import SagaCreated, encode_events
from dotmac.tasks.storage.key_records import ClaimVerdict, Completion, NewRecord
from dotmac.tasks.storage.protocol import StorageProtocol, Watch
from dotmac.tasks.storage.records import Adoption, Append, LockRequest, NewSaga, SagaMeta, SagaRecord

T = TypeVar("T")
LONG = 1000.0
CLOCK_ERROR = 1.0  # bound on `now()` against the clock of a server: an exchange on a busy machine
"""Seconds that no test outlives."""

PENDING, RUNNING, UNDOING = OperationStatus.PENDING, OperationStatus.IN_PROGRESS, OperationStatus.COMPENSATING
COMPLETED, UNDONE, FAILED = OperationStatus.COMPLETED, OperationStatus.COMPENSATED, OperationStatus.FAILED


@dataclass(frozen=True)
class Backend:
    """One storage to run the suite on.

    Attributes:
        tick: Seconds; what a test calls one unit of time. Short where time is real, but longer than a verb takes.
        make: Gives a storage on empty data of its own, not opened yet.
        run: Runs an async function as `trio.run` does; with a virtual clock, where time may be one.
        examples: How many random walks the model test makes.
    """

    tick: float
    make: Callable[[], StorageProtocol]
    run: Callable[..., Any] = trio.run
    examples: int = 20


async def let_time_pass(storage: StorageProtocol, seconds: float) -> None:
    """Return when the storage's clock is at least this much on."""
    until = storage.now() + seconds
    while (left := until - storage.now()) > 0:  # noqa: ASYNC110 - its clock need not run like ours
        await trio.sleep(left)


async def gather(*calls: Callable[[], Awaitable[T]]) -> list[T | Exception]:
    """Make all calls at once; what each returned or raised, in the order given."""
    outcomes: dict[int, T | Exception] = {}

    async def one(index: int, call: Callable[[], Awaitable[T]]) -> None:
        try:
            outcomes[index] = await call()
        except Exception as error:
            outcomes[index] = error

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(one, index, call)
    return [outcomes[index] for index in range(len(calls))]


async def twice(send: Callable[[], Awaitable[T]]) -> T:
    """Send it, send it again as after a lost reply; the answers are equal."""
    first = await send()
    assert await send() == first
    return first


async def woken(watch: Watch) -> None:
    """The watch wakes, or the test fails: a hint is due at once, the deadline only ends a hopeless wait."""
    with trio.fail_after(10):
        await watch.wait()


# --- records --------------------------------------------------------------------------------------------------


def new_record(key: str = "key", *, fingerprint: str = "print", ttl: float = LONG, **changes: Any) -> NewRecord:
    """A record with nothing in the optional fields."""
    fields: dict[str, Any] = {"tenant_id": "t1", "user_id": None, "operation_type": "op", "parameters": None} | changes
    return NewRecord(key=key, fingerprint=fingerprint, ttl=ttl, **fields)


async def claim(
    storage: StorageProtocol, key: str = "key", by: str = "a", *, lease: float = LONG, new: NewRecord | None = None
) -> ClaimVerdict:
    """Claim the key under the token `by`."""
    return await storage.claim_record(new or new_record(key), token=by, owner=f"owner-{by}", lease=lease)


def done(key: str = "key", by: str | None = "a", result: bytes | None = b'"ok"', ttl: float = LONG) -> Completion:
    """The operation went well, says the claim under the token `by`."""
    return Completion(key, by, COMPLETED, result, None, ttl)


# --- sagas ----------------------------------------------------------------------------------------------------


def new_saga(storage: StorageProtocol, **changes: Any) -> NewSaga:
    """A pending one-step saga that nobody owns, with a real first entry."""
    key: NewRecord | None = changes.get("key")
    saga_id = changes.pop("saga_id", None) or storage.new_saga_id(None if key is None else key.key)
    tenant, kind = changes.pop("tenant_id", "t1"), changes.pop("workflow_type", "order")
    definition = SagaDefinition(saga_id, tenant, kind, (StepDefinition("one", "op"),))
    fields: dict[str, Any] = {"status": PENDING, "size": 1, "entry_id": uuid4().hex} | changes
    fields.setdefault("events", encode_events([SagaCreated(definition)]))
    return NewSaga(saga_id=saga_id, tenant_id=tenant, workflow_type=kind, **fields)


async def put_saga(storage: StorageProtocol, **changes: Any) -> SagaMeta:
    """Create such a saga; with ``owner="w1"`` it runs under epoch 1."""
    creation = await storage.create_saga(new_saga(storage, **changes))
    assert creation.created
    assert creation.meta is not None
    return creation.meta


def entry(meta: SagaMeta, status: OperationStatus = RUNNING, **changes: Any) -> Append:
    """The next entry of the saga by its present owner."""
    fields: dict[str, Any] = {"epoch": meta.epoch, "sequence": meta.length, "entry_id": uuid4().hex} | changes
    fields.setdefault("events", b"[]")
    return Append(saga_id=meta.saga_id, status=status, cursor=fields.pop("cursor", 0), **fields)


def adoption(meta: SagaMeta, worker: str = "w2", **changes: Any) -> Adoption:
    """A wish to take the saga over, knowing it as `meta` says."""
    fields: dict[str, Any] = {"expected_epoch": meta.epoch, "entry_id": uuid4().hex, "previous": meta.owner} | changes
    return Adoption(saga_id=meta.saga_id, worker=worker, **fields)


async def head(storage: StorageProtocol, saga_id: str) -> SagaMeta:
    """The saga's head, which must be there."""
    meta = await storage.saga_meta(saga_id)
    assert meta is not None
    return meta


async def whole(storage: StorageProtocol, saga_id: str) -> SagaRecord:
    """The whole saga, which must be there; its journal has no gap."""
    record = await storage.load_saga(saga_id)
    assert record is not None
    assert [line.sequence for line in record.journal] == list(range(record.meta.length))
    return record


# --- locks ----------------------------------------------------------------------------------------------------


def lock(
    token: str, *, name: str = "lock", lease: float = LONG, wait: float | None = None, **changes: Any
) -> LockRequest:
    """A wish for the lock under this token."""
    fields = {"owner": f"owner-{token}", "topic": f"wake-{token}"} | changes
    return LockRequest(name=name, token=token, lease=lease, wait=wait, **fields)
