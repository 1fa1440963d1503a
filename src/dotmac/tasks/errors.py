"""Every error this package raises, in one tree.

Three branches say whose fault it is: `UsageError` (the caller's: change the call), `EnvironmentFault` (the
surroundings': wait, retry or mend them) and `InternalError` (ours: please report it). Two more are not faults
but verdicts: `OperationError` tells how a piece of work ended, `ActorError` that an actor cannot answer.
Handlers raise `OutcomeUnknown` and `NonRetryableError` to tell the engine what it cannot know by itself.
"""

from __future__ import annotations

from typing import Any


class DotmacTasksError(Exception):
    """Root of the tree: `except DotmacTasksError` catches what this package raises and nothing else.

    Errors can be pickled and copied with their attributes, as a process pool does with them.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the error without calling its ``__init__`` again, whose arguments are not those of `Exception`."""
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[DotmacTasksError], args: tuple[Any, ...], attributes: dict[str, Any]) -> DotmacTasksError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


# --- the caller's fault -------------------------------------------------------------------------------------


class UsageError(DotmacTasksError):
    """The call cannot be carried out as made; nothing was stored. Change the call."""


class InvalidInput(UsageError, ValueError):
    """A value was refused at the edge, before anything was stored.

    Attributes:
        field: Path of the refused value, such as ``steps[1].parameters.when``.
        reason: What is wrong with it and what would be accepted.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class BadIdempotencyKey(InvalidInput):
    """The idempotency header of an HTTP request holds no key. ``reason`` says why, and never repeats the value."""


class UnknownOperation(InvalidInput):
    """No handler is registered under this name. Register it before the work is created."""


class NotStarted(UsageError):
    """The manager is not running. Use ``async with manager:`` or ``await manager.start()`` first."""


class AlreadyStarted(UsageError):
    """The manager is running already."""


class MiddlewareNotInstalled(UsageError):
    """An HTTP helper, or an endpoint that needs a key, was called for a request that the middleware has not seen."""


class SagaNotFound(UsageError, LookupError):
    """No saga has this id: it never existed, or its retention is over."""


class SagaStateError(UsageError):
    """The saga is in a state in which the request has no effect or comes too late (cancelling a completed one, say)."""


class IdempotencyKeyNotFound(UsageError, LookupError):
    """No record has this key: it never existed, or its time to live is over."""


class IdempotencyMismatch(UsageError):
    """The key exists for another request (other user, operation or parameters). Use a new key."""


class WouldDeadlock(UsageError):
    """The call would wait for something that waits for the caller, so it would never return. Nothing was begun."""


class LockReentered(WouldDeadlock):
    """The same task asked for a lock that it already holds, which would wait for ever."""


# --- verdicts on work -----------------------------------------------------------------------------------------


class OperationError(DotmacTasksError):
    """How a piece of work ended, when it did not end well."""


class OperationFailed(OperationError):
    """The operation under this idempotency key ended with an error that was stored. Its text is the message."""


class IdempotencyInProgress(OperationError):
    """Somebody else is running the operation under this key right now.

    Attributes:
        retry_after: Seconds until the present claim ends unless it is renewed.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ClaimLost(OperationError):
    """The claim on this key is not ours (any more): its lease ended and somebody else took it. Store nothing."""


class OwnershipLost(OperationError):
    """This worker does not own the saga, or its own lease, any more. Stop, touch nothing: somebody else goes on."""


class OutcomeUnknown(OperationError):
    """Raised by a handler that cannot tell whether its effect happened (a time-out downstream, say).

    The step is retried with the same token while its policy allows; after that it counts as possibly done, so
    its compensation runs.
    """


class NonRetryableError(OperationError):
    """Raised by a handler whose failure is definite and would repeat: no retry is made, compensation starts."""


class LockNotAcquired(OperationError, TimeoutError):
    """The lock was not granted within the wait that the caller allowed. Nothing is held, no place is queued."""


class LockLost(OperationError):
    """The lease of a held lock could not be kept, so the body was cancelled. Compare fences at the resource."""


# --- the surroundings' fault ----------------------------------------------------------------------------------


class EnvironmentFault(DotmacTasksError):
    """Something outside this process failed. What was acknowledged before is safe."""


class StorageUnavailable(EnvironmentFault):
    """The storage did not answer within the deadline. The request may or may not have been carried out."""


class StorageRefused(EnvironmentFault):
    """The storage answered that it will not do this now: full, read-only, or loading. Nothing was written."""


class StorageMisconfigured(EnvironmentFault):
    """The storage works but would not keep this package's promises. The message has the setting to change."""


class StoredDataUnreadable(EnvironmentFault):
    """Stored data cannot be read: it is damaged, or of a newer version of this package. Nothing was changed."""


class UnreadableSaga(StoredDataUnreadable):
    """A saga's journal cannot be read: it is damaged, or of a newer version of this package.

    The saga is left to workers that can read it. Upgrade this process, or look at the journal.
    """


class StoredResponseUnreadable(StoredDataUnreadable):
    """A stored HTTP response cannot be read: it is damaged, sealed, or of a newer version of this package."""


class UnsealFailed(StoredResponseUnreadable):
    """A stored HTTP response does not open: other keys sealed it, for another request, or it was changed since."""


# --- our fault ------------------------------------------------------------------------------------------------


class InternalError(DotmacTasksError):
    """A promise of this package was broken by itself. Please report it with the traceback."""


class JournalConflict(InternalError):
    """Two different entries were written for one position of a saga's journal under one epoch."""


# --- actors ---------------------------------------------------------------------------------------------------


class ActorError(DotmacTasksError):
    """An actor cannot take or answer a message."""


class ActorDied(ActorError):
    """The actor ended before it answered, or had ended before it was asked. Its cause is ``__cause__``."""


class InboxFull(ActorError):
    """The actor's inbox has no room and the caller chose not to wait. Nothing was delivered."""


class AskTimeout(ActorError, TimeoutError):
    """The actor did not answer within the deadline. The message may still be handled."""


class RestartsExceeded(ActorError):
    """A supervisor's children failed more often than its restart intensity allows; it gave up."""
