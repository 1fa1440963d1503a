"""A worker: one lease, and the saga actors that live under it.

All actors of a worker run inside one cancel scope whose deadline is the lease as it was granted, counted from
before the request was sent. Each renewal moves the deadline. So a worker that cannot renew (storage gone, event
loop blocked, process stopped and continued) loses its actors by itself before anybody else may adopt their sagas;
the epoch guards the journal against whatever slips through.

A worker whose lease is over never comes back: the process goes on as a new worker with a new id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from ..actors import ChildSpec, Supervisor
from ..errors import EnvironmentFault, OwnershipLost
from ..storage.folding import DRAINING, STATE, TROUBLES
from ..storage.protocol import worker_topic
from .audit import OwnershipAudit
from .environment import SagaEnvironment
from .live import LiveSagas
from .messages import Drain, Hasten
from .recovery import Recovery
from .renewals import MARGIN, RENEWALS_PER_LEASE
from .whereabouts import fresh_worker_id, whereabouts

_GRACE = 2.0  # seconds beyond `cancel_grace` that cut-off attempts get to write down that they were cut off
_log = logging.getLogger(__name__)


class Worker:
    """One incarnation of this process in the storage.

    Attributes:
        worker_id: Names host and process for people, and is never used twice.
        sagas: The actors at work.
    """

    def __init__(self, environment: SagaEnvironment) -> None:
        self.worker_id = fresh_worker_id()
        self._storage = environment.storage
        self._losses = environment.losses
        self._settings = environment.settings
        self._running = environment.running
        self._scope = trio.CancelScope()
        self._drain = trio.CancelScope()
        self._permits = environment.permits
        self._draining = trio.Event()
        self._told: dict[str, str] = {}
        self._cancels: set[str] = set()
        self._cancels_came = trio.Event()
        self._supervisor = Supervisor(f"worker {self.worker_id}")
        self.sagas = LiveSagas(environment, self.worker_id, self._supervisor.spawn, self._scope)
        self._recovery = Recovery(environment, self.sagas)
        self._audit = OwnershipAudit(environment, self.sagas)

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Begin the lease, host saga actors and keep the lease until `stop`.

        Args:
            on_ready: Called when sagas can be started here.

        Raises:
            OwnershipLost: The lease could not be kept; all actors are gone.
            StorageUnavailable: The lease could not be begun.
            StorageRefused: The same.
        """
        before = trio.current_time()
        await self._storage.register_worker(
            self.worker_id, self._settings.worker_lease, {**whereabouts(), **self._recovery.liveness.info()}
        )
        self._lease_granted(before)
        self._running.worker_scope = self._scope
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._supervisor.run)
                for name, run in (
                    ("lease", self._keep_lease),
                    ("knocks", self._hear_knocks),
                    ("cancels", self._pass_cancels_on),
                    ("liveness", self._recovery.liveness.run),
                    ("recovery", self._recovery.run),
                    ("audit", self._audit.run),
                ):
                    await self._supervisor.start_child(ChildSpec(name, run, shutdown_seconds=0))
                on_ready()
        if self._scope.cancelled_caught:
            raise OwnershipLost(f"worker {self.worker_id} could not renew its lease in time")
        await self._retire()

    async def stop(self, drain_seconds: float) -> None:
        """Begin nothing new, let running attempts end for `drain_seconds`, cut off the rest, hand everything over."""
        self._recovery.pause()
        self.sagas.close()
        self.sagas.tell_all(Drain())
        if self.sagas.running():
            self._draining.set()
        with self._drain:
            self._drain.deadline = min(self._drain.deadline, trio.current_time() + drain_seconds)
            await self.sagas.wait_until_idle()
        self.sagas.tell_all(Hasten())
        with trio.move_on_after(self._settings.cancel_grace + _GRACE):
            await self.sagas.wait_until_idle()
        self._supervisor.request_stop()

    def hasten(self) -> None:
        """End the drain, whether it has begun or not."""
        self._drain.cancel()

    def _news(self) -> dict[str, str]:
        """What has changed since the registration."""
        troubles = self._permits.troubles()
        told = {TROUBLES: "\n".join(troubles)} if troubles else {}
        return {**told, STATE: DRAINING} if self._draining.is_set() else told

    # --- the lease ------------------------------------------------------------------------------------------

    def _lease_granted(self, asked_at: float) -> None:
        self._scope.deadline = asked_at + self._settings.worker_lease * (1 - MARGIN)

    async def _keep_lease(self) -> None:
        third = self._settings.worker_lease / RENEWALS_PER_LEASE
        pause, news = third, self._draining
        while True:
            with trio.move_on_after(pause):
                await news.wait()
                news = trio.Event()  # the drain begins once; a failed renewal is repeated after a pause
            pause = third if await self._renew() else third / RENEWALS_PER_LEASE

    async def _hear_knocks(self) -> None:
        """The quick way for cancel requests: somebody knocks, and a renewal brings them. Renewals are the sure way."""
        while True:
            try:
                async with self._storage.watch(worker_topic(self.worker_id)) as topic:
                    while True:
                        await self._renew()  # first for what came before anybody listened
                        await topic.wait()
            except EnvironmentFault as error:
                _log.warning("worker %s cannot hear cancel requests: %s", self.worker_id, error)
                await trio.sleep(self._settings.worker_lease / RENEWALS_PER_LEASE)

    async def _pass_cancels_on(self) -> None:
        """Tell actors of cancel requests: a question to the storage for each, for which no renewal may have to wait."""
        while True:
            await self._cancels_came.wait()
            self._cancels_came = trio.Event()
            cancels, self._cancels = self._cancels, set()
            try:
                for saga_id in cancels:
                    await self.sagas.cancel_requested(saga_id)
            except EnvironmentFault as error:
                # The next renewal brings those again that were not passed on.
                _log.warning("worker %s could not look up what is to be cancelled: %s", self.worker_id, error)

    async def _renew(self) -> bool:
        """Prolong the lease, and note the cancel requests that come with the answer; whether there was one."""
        asked_at = trio.current_time()
        try:
            news = self._news()
            info = None if news == self._told else {**whereabouts(), **self._recovery.liveness.info(), **news}
            renewal = await self._storage.renew_worker(self.worker_id, self._settings.worker_lease, info)
            self._told = news
            self._lease_granted(asked_at)
            if renewal.cancels:
                self._cancels.update(renewal.cancels)
                self._cancels_came.set()
        except OwnershipLost:
            if trio.current_time() < self._scope.deadline:
                self._losses.note("worker", self.worker_id)
            self._scope.cancel()
        except EnvironmentFault as error:
            _log.warning("worker %s could not renew its lease: %s", self.worker_id, error)
            return False
        return True

    async def _retire(self) -> None:
        try:
            await self._storage.retire_worker(self.worker_id)
        except EnvironmentFault as error:
            _log.warning("worker %s could not sign off; its lease will end by itself: %s", self.worker_id, error)
