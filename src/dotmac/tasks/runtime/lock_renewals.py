"""Keeps the leases of all held locks alive: one task knows when the next is due, and asks for all due ones at once.

Each renewal is a task of its own, so that a node that does not answer holds up nobody else's lease; sent in the same
moment, they leave in one write.
"""

from __future__ import annotations

import logging
import math

import trio

from ..errors import EnvironmentFault, LockLost
from ..storage.protocol import StorageProtocol
from .lock_holding import RENEWALS_PER_LEASE, Tenure

_TOGETHER = 1 / 4  # of the time between two renewals: those due so soon are renewed with those due now
_log = logging.getLogger(__name__)


class LockRenewals:
    """The held locks of this process."""

    def __init__(self, storage: StorageProtocol) -> None:
        self._storage = storage
        self._held: set[Tenure] = set()
        self._asking: set[Tenure] = set()
        self._wakes_at = math.inf
        self._sooner = trio.Event()

    def add(self, tenure: Tenure) -> None:
        """Keep it until `remove`."""
        self._held.add(tenure)
        if tenure.renew_at < self._wakes_at:
            self._wakes_at = tenure.renew_at
            self._sooner.set()

    def remove(self, tenure: Tenure) -> None:
        """Keep it no longer."""
        self._held.discard(tenure)

    async def run(self) -> None:
        """Renew what is due, for ever."""
        async with trio.open_nursery() as nursery:
            while True:
                self._sooner = trio.Event()
                # Where what woke us is given up already, we wake up for it all the same: locks that are held for a
                # moment only, one after the other, would wake us for each of them otherwise.
                expected = self._wakes_at if self._wakes_at > trio.current_time() else math.inf
                self._wakes_at = min((tenure.renew_at for tenure in self._held - self._asking), default=expected)
                with trio.move_on_at(self._wakes_at):
                    await self._sooner.wait()
                now = trio.current_time()
                for tenure in self._held - self._asking:
                    soon = tenure.lease / RENEWALS_PER_LEASE * _TOGETHER
                    if tenure.is_over:
                        tenure.lose()
                        self._held.discard(tenure)
                    elif tenure.renew_at <= now + soon:
                        self._asking.add(tenure)
                        nursery.start_soon(self._renew, tenure)

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
                tenure.lose()
            raise
        if tenure in self._held:
            tenure.extended(lease, asked_at)
        if tenure.lost:
            raise LockLost(f"the lease of the lock {tenure.name!r} was over before its extension was confirmed")

    async def _renew(self, tenure: Tenure) -> None:
        try:
            await self.extend(tenure, tenure.lease)
        except LockLost:
            _log.warning("the lock %r could not be renewed: its lease is over", tenure.name)
        except EnvironmentFault as error:
            _log.warning("the lock %r could not be renewed: %s", tenure.name, error)
            tenure.renew_at = trio.current_time() + tenure.lease / RENEWALS_PER_LEASE**2
        finally:
            self._asking.discard(tenure)
            self._sooner.set()
