"""Keeps the leases of all held locks alive, and tells their holders when that fails."""

from __future__ import annotations

import logging

import trio

from ..errors import EnvironmentFault, LockLost
from ..storage.protocol import StorageProtocol
from .lock_holding import Tenure
from .losses import Losses
from .renewals import Renewals, is_due_again

_log = logging.getLogger(__name__)


class LockRenewals:
    """The held locks of this process."""

    def __init__(self, storage: StorageProtocol, losses: Losses) -> None:
        self._storage = storage
        self._losses = losses
        self._held = Renewals(self._renew)
        self.add = self._held.add
        self.remove = self._held.remove
        self.run = self._held.run

    async def extend(self, tenure: Tenure, lease: float) -> None:
        """Ask for a longer lease now.

        Raises:
            LockLost: It is over. The body is cancelled.
            EnvironmentFault: No answer, or a refusal; the lease lasts as long as it did.
        """
        asked_at = trio.current_time()
        try:
            await self._storage.extend_lock(tenure.name, tenure.token, lease)
        except LockLost:
            if tenure in self._held:  # otherwise it was given up while we asked
                if not tenure.is_over:
                    self._losses.note("lock", tenure.name)
                tenure.lose()
            raise
        if tenure in self._held:
            tenure.extended(lease, asked_at)
        if tenure.lost:
            raise LockLost(f"the lease of the lock {tenure.name!r} was over before its extension was confirmed")

    async def _renew(self, tenure: Tenure) -> None:
        if tenure.is_over:
            tenure.lose()
            self._held.remove(tenure)
            return
        try:
            await self.extend(tenure, tenure.lease)
        except LockLost:
            self._held.remove(tenure)
            if tenure.lost:  # otherwise it was given up while we asked, as in `extend`
                _log.warning("the lock %r could not be renewed: its lease is over", tenure.name)
        except EnvironmentFault as error:
            if tenure in self._held:
                is_due_again(tenure)
                _log.warning("the lock %r could not be renewed: %s", tenure.name, error)
