"""How a process that runs no sagas makes others run one: it owns the saga for one entry of its journal.

An operator's decision must be in the journal before anybody hears of it, and only an owner can write there. So the
saga is adopted by a worker that there is for this moment only, the decision is appended, and with the same entry the
saga is given up and due. Should this process die in between, the saga belongs to a worker that is lost, and is adopted
as such when its lease has ended.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from ..errors import EnvironmentFault, StorageUnavailable, UnreadableSaga
from ..saga.events import SagaResumed
from ..storage.protocol import StorageProtocol
from ..storage.records import Adoption, SagaMeta
from .fresh_ids import fresh_id
from .journal import Journal
from .whereabouts import fresh_worker_id, whereabouts

PATIENCE = 10.0
"""Seconds that a decision may take to be stored: whoever waits for it does so under nobody's lease."""

_SIGN_OFF = 1.0  # seconds


async def hand_over(storage: StorageProtocol, meta: SagaMeta, resume: SagaResumed | None = None) -> None:
    """Make the saga due at once, for any worker.

    Args:
        storage: Where it is.
        meta: Its head, as its epoch and its length must still be.
        resume: What an operator decided about a parked saga; durable when this returns.

    Raises:
        OwnershipLost: Somebody else was faster.
        SagaNotFound: It is gone.
        UnreadableSaga: Its journal cannot be read here; nothing was decided.
        StorageUnavailable: No answer; the decision may have been stored or not.
    """
    with trio.move_on_after(PATIENCE):
        await _hand_over(storage, meta, resume)
        return
    raise StorageUnavailable(f"saga {meta.saga_id} could not be handed over within {PATIENCE:g} s")


async def _hand_over(storage: StorageProtocol, meta: SagaMeta, resume: SagaResumed | None) -> None:
    async with _signed_on(storage) as name:
        record = await storage.adopt_saga(
            Adoption(meta.saga_id, name, meta.epoch, fresh_id(), expected_length=meta.length)
        )
        try:
            journal = Journal.of(storage, record)
        except UnreadableSaga:
            await storage.release_saga(meta.saga_id, record.meta.epoch, None)
            raise
        if resume is not None:
            journal.record(resume)
        await journal.release(storage.now())


@asynccontextmanager
async def _signed_on(storage: StorageProtocol) -> AsyncIterator[str]:
    """A worker that has a lease while inside: what belongs to none is what a lost one left, for everybody to take."""
    name = fresh_worker_id()
    await storage.register_worker(name, PATIENCE, whereabouts())
    try:
        yield name
    finally:
        # What was decided is stored or not by now; a lease that is not given back ends soon.
        with trio.move_on_after(_SIGN_OFF, shield=True), suppress(EnvironmentFault):
            await storage.retire_worker(name)
