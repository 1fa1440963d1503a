"""Watches the workers of the same machine, so that one whose process dies is replaced at once, not after its lease.

Who they are comes with each look of the recovery, so an idle worker asks the storage nothing more. The kernel tells
when one of their processes ends; then its worker is retired in its stead, and its sagas are for all to adopt. That
several survivors retire it does no harm. Claims on idempotency keys and locks that the process held are not touched:
they have leases of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from ..errors import EnvironmentFault
from ..storage.protocol import StorageProtocol
from ..storage.records import WorkerRecord
from .process import Process

_PAUSE = 0.5  # seconds between two tries to retire a worker, while the storage is away
_log = logging.getLogger(__name__)


class Liveness:
    """The watches of one worker over its peers.

    Args:
        storage: Where the workers are registered.
        on_death: Called after a worker whose process has died was retired.
    """

    def __init__(self, storage: StorageProtocol, on_death: Callable[[], None]) -> None:
        self._storage = storage
        self._on_death = on_death
        self._here = Process.this()
        self._watches: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    def info(self) -> dict[str, str]:
        """What this worker registers with, so that its peers can watch it; empty where the system does not say."""
        return {} if self._here is None else self._here.info()

    async def run(self) -> None:
        """Watch, for ever, whom `heed` names."""
        try:
            async with trio.open_nursery() as self._nursery:
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._watches.clear()

    def heed(self, alive: Iterable[WorkerRecord]) -> None:
        """These workers have a lease: watch those of other processes of this machine, and nobody else any more."""
        if self._nursery is None or self._here is None:
            return
        peers = {worker.worker_id: process for worker in alive if (process := self._peer(worker)) is not None}
        for worker_id in self._watches.keys() - peers.keys():
            self._watches.pop(worker_id).cancel()
        for worker_id in peers.keys() - self._watches.keys():
            self._watches[worker_id] = scope = trio.CancelScope()
            self._nursery.start_soon(self._watch, worker_id, peers[worker_id], scope)

    def _peer(self, worker: WorkerRecord) -> Process | None:
        process = Process.of(worker.info)
        if process is None or self._here is None or process.kernel != self._here.kernel or process == self._here:
            return None
        return process

    async def _watch(self, worker_id: str, process: Process, scope: trio.CancelScope) -> None:
        with scope:
            await process.wait_until_dead()
            await self._retire(worker_id)
            # Forgotten first: should the next look still find its lease alive, by a difference of clocks, it is
            # watched anew and retired again.
            if self._watches.get(worker_id) is scope:
                del self._watches[worker_id]
            self._on_death()

    async def _retire(self, worker_id: str) -> None:
        while True:
            try:
                had_lease = await self._storage.retire_worker(worker_id)
            except EnvironmentFault as error:
                _log.warning("the process of worker %s has ended; it cannot be retired yet: %s", worker_id, error)
                await trio.sleep(_PAUSE)
                continue
            if had_lease:  # else it had signed off before it ended, as with each deployment, or a peer was faster
                _log.warning("the process of worker %s is dead; its sagas are taken over", worker_id)
            return
