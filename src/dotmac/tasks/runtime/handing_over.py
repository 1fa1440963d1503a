"""How a process that runs no sagas makes others run one: it owns the saga for one entry of its journal.

An operator's decision must be in the journal before anybody hears of it, and only an owner can write there. So the
saga is adopted under a name that no worker has, the decision is appended, and with the same entry the saga is given
up and due. Should this process die in between, the saga belongs to a worker that is lost, and is adopted as such.
"""

from __future__ import annotations

import os
import secrets
import socket

import trio

from ..errors import StorageUnavailable
from ..saga.events import SagaResumed
from ..storage.folding import state_of
from ..storage.protocol import StorageProtocol
from ..storage.records import Adoption, SagaMeta
from .entry_ids import fresh_entry_id
from .journal import Journal

PATIENCE = 10.0
"""Seconds that a decision may take to be stored: whoever waits for it does so under nobody's lease."""


async def hand_over(storage: StorageProtocol, meta: SagaMeta, resume: SagaResumed | None = None) -> None:
    """Make the saga due at once, for any worker.

    Args:
        storage: Where it is.
        meta: Its head, as its epoch and its length must still be.
        resume: What an operator decided about a parked saga; durable when this returns.

    Raises:
        OwnershipLost: Somebody else was faster.
        SagaNotFound: It is gone.
        StorageUnavailable: No answer; the decision may have been stored or not.
    """
    name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    with trio.move_on_after(PATIENCE):
        record = await storage.adopt_saga(
            Adoption(meta.saga_id, name, meta.epoch, fresh_entry_id(), expected_length=meta.length)
        )
        journal = Journal(storage, state_of(record), epoch=record.meta.epoch, sequence=record.meta.length)
        if resume is not None:
            journal.record(resume)
        await journal.release(storage.now())
        return
    raise StorageUnavailable(f"saga {meta.saga_id} could not be handed over within {PATIENCE:g} s")
