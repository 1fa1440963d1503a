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
    NonRetryableError,
    NotStarted,
    OperationFailed,
    OutcomeUnknown,
    SagaNotFound,
    SagaStateError,
    StorageMisconfigured,
    StorageRefused,
    StorageUnavailable,
    UnknownOperation,
)
from .handle import SagaHandle
from .manager import BackgroundOperationsManager
from .models import (
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
)
from .retry import RetryPolicy
from .runtime.context import HandlerContext
from .runtime.lock_body import HeldLock, HeldLocks
from .settings import Settings
from .storage.memory import MemoryStorage
from .storage.protocol import StorageProtocol

__all__ = [
    "AlreadyStarted",
    "BackgroundOperationsManager",
    "ClaimLost",
    "DotmacTasksError",
    "HandlerContext",
    "HeldLock",
    "HeldLocks",
    "IdempotencyInProgress",
    "IdempotencyKey",
    "IdempotencyKeyNotFound",
    "IdempotencyMismatch",
    "InvalidInput",
    "LockInfo",
    "LockLost",
    "LockNotAcquired",
    "LockReentered",
    "MemoryStorage",
    "NonRetryableError",
    "NotStarted",
    "OperationFailed",
    "OperationStatus",
    "OutcomeUnknown",
    "RetryPolicy",
    "SagaHandle",
    "SagaHistoryEntry",
    "SagaList",
    "SagaNotFound",
    "SagaOutcome",
    "SagaStateError",
    "SagaStep",
    "SagaSummary",
    "SagaWorkflow",
    "Settings",
    "StepKind",
    "StorageMisconfigured",
    "StorageProtocol",
    "StorageRefused",
    "StorageUnavailable",
    "UnknownOperation",
    "__version__",
]
