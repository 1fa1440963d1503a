"""What operators can do to sagas: cancel one, let a parked one go on."""

from __future__ import annotations

import trio

from ..bounds import check_reason
from ..errors import InvalidInput, OwnershipLost, SagaStateError, StorageUnavailable, UnreadableSaga
from ..models import OperationStatus
from ..saga.events import SagaResumed
from ..saga.machine import why_not_cancelled
from ..saga.rewinding import why_not_from
from ..storage.folding import state_of
from ..storage.records import SagaMeta
from .environment import SagaEnvironment
from .handing_over import PATIENCE, hand_over
from .runtime import Runtime
from .stored_sagas import meta_of, record_of


class SagaSteering:
    """Steers sagas, wherever they run.

    Args:
        environment: Storage, settings, handlers.
        runtime: Whose worker runs what is resumed here.
    """

    def __init__(self, environment: SagaEnvironment, runtime: Runtime) -> None:
        self._environment = environment
        self._storage = environment.storage
        self._runtime = runtime

    async def cancel(self, saga_id: str, reason: str) -> None:
        """Turn the saga back; that it was asked for is durable when this returns, and no completion can follow.

        Raises:
            SagaNotFound: There is no such saga.
            SagaStateError: It has ended, or its pivot is running or has completed. A request that meets a running
                pivot stays: should the attempt fail, the saga turns back.
            InvalidInput: The reason cannot be journaled.
            UnreadableSaga: The request is stored, but whether it came too late cannot be seen here.
        """
        check_reason(reason)
        meta = await meta_of(self._storage, saga_id)
        if meta.status is OperationStatus.FAILED:
            await self._turn_parked_back(saga_id, reason)
            return
        if not meta.status.is_final:
            meta = await self._storage.request_cancel(saga_id, reason)
        if meta.status is OperationStatus.COMPLETED:
            raise SagaStateError(f"saga {saga_id} cannot be cancelled: it is completed")
        record = await record_of(self._storage, saga_id)
        try:
            state = state_of(record)
        except UnreadableSaga as error:
            stored = "the request to cancel is stored; a worker that can read the journal obeys it if it came in time"
            raise UnreadableSaga(f"{error}; {stored}") from error
        why = why_not_cancelled(state)
        if why is None and not state.undoing and record.meta.cancel is None:
            why = "it was parked and resumed in the same moment, which ended the request"
        if why is not None:
            raise SagaStateError(f"saga {saga_id} cannot be cancelled: {why}")
        if record.meta.cancel is not None:
            self._runtime.cancel_here(saga_id, record.meta.cancel)

    async def retry(self, saga_id: str, reason: str, from_step: str | None) -> None:
        """Let a parked saga go on from where it failed, or forward again from a step, with fresh attempts.

        Raises:
            InvalidInput: There is no step of this name, or the reason cannot be journaled.
            SagaNotFound: There is no such saga.
            SagaStateError: It is not parked, or cannot go on from this step.
        """
        check_reason(reason)
        if from_step is None:
            meta = await meta_of(self._storage, saga_id)
            _check_parked(meta)
            await self._resume(meta, SagaResumed(reason=reason))
        else:
            await self._rewind(saga_id, reason, from_step)

    async def _rewind(self, saga_id: str, reason: str, from_step: str) -> None:
        record = await record_of(self._storage, saga_id)
        _check_parked(record.meta)
        state = state_of(record)
        names = [step.name for step in state.definition.steps]
        if from_step not in names:
            raise InvalidInput("from_step", f"saga {saga_id} has no step {from_step!r:.80}; it has: {', '.join(names)}")
        step = names.index(from_step)
        why = why_not_from(state, step)
        if why is not None:
            raise SagaStateError(f"saga {saga_id} cannot go on from step '{from_step}': {why}")
        # Of the same record: who owns the saga with this epoch and length meets the state that was judged.
        await self._resume(record.meta, SagaResumed(reason=reason, from_step=step))

    async def _turn_parked_back(self, saga_id: str, reason: str) -> None:
        record = await record_of(self._storage, saga_id)
        state = state_of(record)
        if state.status is not OperationStatus.FAILED:  # resumed by somebody else since we looked, or ended as well
            raise SagaStateError(f"saga {saga_id} cannot be cancelled: it was resumed, and is {state.status}")
        if state.undoing or state.committed:
            raise SagaStateError(f"saga {saga_id} cannot be cancelled: it is parked ({'; '.join(state.open_items)})")
        await self._resume(record.meta, SagaResumed(undo=True, reason=reason))

    async def _resume(self, meta: SagaMeta, event: SagaResumed) -> None:
        try:
            if self._environment.works:
                await self._resume_here(meta, event)
            else:
                await hand_over(self._storage, meta, event)
        except OwnershipLost as error:
            raise SagaStateError(f"saga {meta.saga_id} was resumed by somebody else in the same moment") from error

    async def _resume_here(self, meta: SagaMeta, event: SagaResumed) -> None:
        worker = await self._runtime.worker()
        # The journal insists until its worker's lease ends, which is not what we wait under.
        with trio.move_on_after(PATIENCE):
            await worker.sagas.resume(meta, event)
            return
        raise StorageUnavailable(f"a decision about saga {meta.saga_id} could not be stored within {PATIENCE:g} s")


def _check_parked(meta: SagaMeta) -> None:
    if meta.status is not OperationStatus.FAILED:
        raise SagaStateError(f"saga {meta.saga_id} cannot be retried: it is {meta.status}, only failed sagas can be")
