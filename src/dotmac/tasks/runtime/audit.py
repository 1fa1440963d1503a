"""Compares what the storage says this worker owns with what it runs, now and then.

The two part company only when the storage forgot something that it had acknowledged: a failover, or a restart
from an old snapshot, took the end of a saga back. Then the storage names us as the owner of a saga that we believe
to have ended, and as long as our lease goes on nobody else would touch it. Such a saga is run on from where its
journal ends.
"""

from __future__ import annotations

import logging

import trio

from ..errors import EnvironmentFault
from .environment import SagaEnvironment
from .live import LiveSagas

_LEASES = 4  # between two looks
_SAGAS_PER_SECOND = 10.0  # the most that a look may cost, on average
_SPARE = 100
_log = logging.getLogger(__name__)


class OwnershipAudit:
    """The worker's look at itself."""

    def __init__(self, environment: SagaEnvironment, sagas: LiveSagas) -> None:
        self._storage = environment.storage
        self._lease = environment.settings.worker_lease
        self._sagas = sagas
        self._suspects: set[str] = set()
        self._absent: set[str] = set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await trio.sleep(max(_LEASES * self._lease, len(self._sagas) / _SAGAS_PER_SECOND))
            try:
                await self._look()
            except EnvironmentFault as error:
                _log.warning("cannot compare what this worker owns with what it runs: %s", error)

    async def _look(self) -> None:
        most = len(self._sagas) + _SPARE
        owned = await self._storage.orphaned_sagas(self._sagas.worker_id, most)
        if len(owned) < most:
            await self._look_for_losses({saga.saga_id for saga in owned})
        # What waits as a stray is left alone: noted again, it would have to wait anew, each time for longer.
        missing = {
            saga.saga_id
            for saga in owned
            if self._sagas.get(saga.saga_id) is None and saga.saga_id not in self._sagas.strays
        }
        # Seen twice: one that was created or adopted a moment ago may not have its actor yet, but soon has.
        for saga_id in missing & self._suspects:
            _log.warning(
                "saga %s is ours and nobody runs it: the storage lost what it had acknowledged",
                saga_id,
                extra={"saga_id": saga_id},
            )
            self._sagas.strays.add(saga_id)
        self._suspects = missing

    async def _look_for_losses(self, owned: set[str]) -> None:
        """Report sagas that run here and are gone from the storage; their next append may be hours away."""
        absent = {saga_id for saga_id in self._sagas.running() if saga_id not in owned}
        for saga_id in absent & self._absent:  # seen twice, as below
            if await self._storage.saga_meta(saga_id) is None and (actor := self._sagas.get(saga_id)) is not None:
                self._sagas.vanished(actor)
        self._absent = absent
