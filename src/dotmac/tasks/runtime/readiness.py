"""What an attempt needs before it is recorded: the lock of its step, then the permit of its handler.

Waiting for either is no attempt: nothing about it is in the journal, no time-out runs but the saga's deadline, and no
retry is used up. The lock comes first: of the sagas that want it, only its holder takes part in the queue for permits.
Holders of permits that wait for the same lock suspend their permits, so the two orders cannot block each other.
"""

from __future__ import annotations

from typing import Any

from ..errors import InvalidInput, UsageError, WouldDeadlock
from ..saga.commands import Invoke
from ..saga.definition import SagaDefinition
from ..saga.events import AttemptStarted
from ..saga.lock_names import lock_name
from ..saga.references import resolve
from .context import StepResults
from .environment import SagaEnvironment
from .handlers import Handler
from .permits import Permit
from .step_lock import StepLock

NextAttempt = AttemptStarted | Invoke


def expanded(definition: SagaDefinition, index: int, results: StepResults, *, undo: bool, limit: int) -> dict[str, Any]:
    """A step's parameters with their expressions replaced; at most `limit` bytes. Raises InvalidInput."""
    step = definition.steps[index]
    field = f"steps[{index}].{'compensation_parameters' if undo else 'parameters'}"
    parameters = step.compensation_parameters if undo else step.parameters
    result: dict[str, Any] = resolve(parameters, results.raw, limit=limit, field=field)
    return result


class Readiness:
    """Lock and permit of one saga's next attempt.

    Args:
        environment: Shared by all actors.
        definition: Of the saga.
        permit: Of its first attempt, where that was recorded with the saga's creation.

    Attributes:
        lock: The lock of the next attempt's step, from the moment it is waited for.
        permit: Of the next attempt's handler, once it is granted.
        refusal: Why the step has no lock: its parameters make no name, or the wait for it would never end. The attempt
            fails with it, and calls no handler.
    """

    __slots__ = ("_definition", "_environment", "_locked", "lock", "permit", "refusal")

    def __init__(self, environment: SagaEnvironment, definition: SagaDefinition, permit: Permit | None) -> None:
        self._environment = environment
        self._definition = definition
        self._locked: tuple[int, bool] | None = None
        self.lock: StepLock | None = None
        self.refusal: UsageError | None = None
        self.permit = permit

    @property
    def holds(self) -> bool:
        """Whether a lock or a permit is held."""
        return self.permit is not None or self.lock is not None

    @property
    def complete(self) -> bool:
        """Whether an attempt that was taken or waited for still has all that it needs."""
        return self.permit is not None and (self.lock is None or not self.lock.lost)

    def take(self, attempt: NextAttempt, handler: Handler) -> bool:
        """Whether the attempt can begin now: its lock is held, and its permit is held or was free."""
        permit, lock = self.permit, self.lock
        if permit is not None and permit.demand is not handler.demand:
            permit.release()
            permit = self.permit = None
        if lock is not None or self._definition.steps[attempt.step].lock is not None:
            if self._locked != (attempt.step, attempt.undo):
                return False
            if lock is not None and (not lock.held or lock.lost):
                return False
        if permit is None:
            permit = self.permit = self._environment.permits.take(handler.demand, self._definition.saga_id)
        return permit is not None

    async def wait(self, attempt: NextAttempt, handler: Handler, results: StepResults) -> None:
        """Wait until `take` finds everything. When it is cancelled, it keeps what it has got."""
        if self._locked != (attempt.step, attempt.undo) or (self.lock is not None and self.lock.lost):
            await self._drop_lock()
        if self._locked is None and self._definition.steps[attempt.step].lock is not None:
            self._locked = attempt.step, attempt.undo
            self.lock = self._step_lock(attempt.step, results)
        if self.lock is not None:
            try:
                await self.lock.acquire()
            except WouldDeadlock as error:
                self.lock, self.refusal = None, error
        if self.permit is None:
            self.permit = await self._environment.permits.wait(
                handler.demand, self._definition.saga_id, self._definition.priority
            )

    async def drop(self) -> None:
        """Give up lock and permit: another thing comes next."""
        self.ended()
        await self._drop_lock()

    def ended(self) -> None:
        """The attempt has ended, and left its lock."""
        if self.permit is not None:
            self.permit.release()
            self.permit = None
        if self.lock is None or not self.lock.held:
            self.lock = self._locked = self.refusal = None

    async def _drop_lock(self) -> None:
        lock = self.lock
        self.lock = self._locked = self.refusal = None
        if lock is not None:
            await lock.abandon()

    def _step_lock(self, index: int, results: StepResults) -> StepLock | None:
        definition, environment = self._definition, self._environment
        template, limit = definition.steps[index].lock or "", environment.settings.max_payload
        try:
            # Of the step's own parameters also when it is undone: both touch the same thing.
            parameters = expanded(definition, index, results, undo=False, limit=limit)
            name = lock_name(template, parameters, definition.tenant_id, definition.saga_id)
        except InvalidInput as error:
            self.refusal = error
            return None
        saga = definition.saga_id, definition.tenant_id
        return StepLock(environment.locks, name, environment.settings.worker_lease, saga)
