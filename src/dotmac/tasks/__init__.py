"""Background operations that are not lost and not done twice: idempotent operations, sagas, locks."""

from ._version import __version__
from .errors import (
    AlreadyStarted,
    ClaimLost,
    DotmacTasksError,
    IdempotencyInProgress,
    IdempotencyKeyNotFound,
    IdempotencyMismatch,
    InvalidInput,
    LockLost,
    LockNotAcquired,
    LockReentered,
    MiddlewareNotInstalled,
    NonRetryableError,
    NotStarted,
    OperationFailed,
    OutcomeUnknown,
    SagaNotFound,
    SagaStateError,
    StorageMisconfigured,
    StorageRefused,
    StorageUnavailable,
    StoredDataUnreadable,
    UnknownOperation,
    UnreadableSaga,
    WouldDeadlock,
)
from .handle import SagaHandle
from .http.decorator import idempotent_route
from .http.middleware import BackgroundOperationsMiddleware
from .http.options import IdempotencyOptions
from .http.requests import (
    StartedSaga,
    declare_no_effect,
    get_idempotency_key,
    set_operation_result,
    start_saga_for_request,
)
from .http.routes import RouteRule
from .http.scope import Identity
from .http.sealing import FernetCodec
from .http.setup import add_background_operations_middleware
from .listings import IdempotencyKeyList, IdempotencyKeySummary, LockStanding, LockWaiter
from .manager import BackgroundOperationsManager
from .models import (
    Finding,
    IdempotencyKey,
    LockInfo,
    OperationStatus,
    SagaHistoryEntry,
    SagaList,
    SagaOutcome,
    SagaStep,
    SagaSummary,
    SagaWorkflow,
    StepKind,
    Verdict,
    WorkerInfo,
)
from .retry import RetryPolicy
from .runtime.context import HandlerContext
from .runtime.lock_body import HeldLock, HeldLocks
from .saga.references import literal, ref
from .settings import Settings
from .storage.history import SagaHistory
from .storage.memory import MemoryStorage
from .storage.protocol import StorageProtocol

__all__ = [
    "AlreadyStarted",
    "BackgroundOperationsManager",
    "BackgroundOperationsMiddleware",
    "ClaimLost",
    "DotmacTasksError",
    "FernetCodec",
    "Finding",
    "HandlerContext",
    "HeldLock",
    "HeldLocks",
    "IdempotencyInProgress",
    "IdempotencyKey",
    "IdempotencyKeyList",
    "IdempotencyKeyNotFound",
    "IdempotencyKeySummary",
    "IdempotencyMismatch",
    "IdempotencyOptions",
    "Identity",
    "InvalidInput",
    "LockInfo",
    "LockLost",
    "LockNotAcquired",
    "LockReentered",
    "LockStanding",
    "LockWaiter",
    "MemoryStorage",
    "MiddlewareNotInstalled",
    "NonRetryableError",
    "NotStarted",
    "OperationFailed",
    "OperationStatus",
    "OutcomeUnknown",
    "RetryPolicy",
    "RouteRule",
    "SagaHandle",
    "SagaHistory",
    "SagaHistoryEntry",
    "SagaList",
    "SagaNotFound",
    "SagaOutcome",
    "SagaStateError",
    "SagaStep",
    "SagaSummary",
    "SagaWorkflow",
    "Settings",
    "StartedSaga",
    "StepKind",
    "StorageMisconfigured",
    "StorageProtocol",
    "StorageRefused",
    "StorageUnavailable",
    "StoredDataUnreadable",
    "UnknownOperation",
    "UnreadableSaga",
    "Verdict",
    "WorkerInfo",
    "WouldDeadlock",
    "__version__",
    "add_background_operations_middleware",
    "declare_no_effect",
    "get_idempotency_key",
    "idempotent_route",
    "literal",
    "ref",
    "set_operation_result",
    "start_saga_for_request",
]
