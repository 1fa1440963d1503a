"""Finds sagas that want an owner, and adopts them: due ones, those of lost workers, and our own strays.

Several workers do this at once. Adoption compares the epoch, so exactly one of them gets each saga; taking them in
small batches in random order within one priority spreads them and keeps the collisions few.
"""

from __future__ import annotations

import logging
import random
from contextlib import suppress

import trio

from ..errors import EnvironmentFault, NotStarted, OwnershipLost, SagaNotFound, UnreadableSaga
from ..storage.protocol import ANNOUNCED_AHEAD, DUE_TOPIC
from ..storage.records import AdoptableSaga
from .environment import SagaEnvironment
from .live import LiveSagas
from .liveness import Liveness

_BATCH, _DOUBLINGS, _PATIENCE = 100, 3, 3  # sagas; doubled after so many full ones, when everybody has noticed
_AT_ONCE = 32
_POLLS_PER_SWEEP = 10  # while nothing is announced; what can be due is known from the last sweep
_NEW_FOR = 10.0  # seconds
_log = logging.getLogger(__name__)


class Recovery:
    """The worker's search for work.

    Attributes:
        liveness: Watches the workers that each look finds; a death among them hurries the next look.
    """

    def __init__(self, environment: SagaEnvironment, sagas: LiveSagas) -> None:
        self._storage = environment.storage
        self._interval = environment.settings.poll_interval
        self._sweep_interval = min(ANNOUNCED_AHEAD, self._interval * _POLLS_PER_SWEEP)
        self._standing_back = environment.standing_back
        self._handlers = environment.handlers
        self._new_handlers: dict[str, float] = {}
        self._sagas = sagas
        self._paused = False
        self._hurried = False
        self._rest = trio.CancelScope()
        self._full_batches = 0
        self.liveness = Liveness(environment.storage, self.hurry)

    def pause(self) -> None:
        """Adopt nothing from now on."""
        self._paused = True

    def hurry(self) -> None:
        """Look again at once, or right after the present look."""
        self._hurried = True
        self._rest.cancel()

    async def run(self) -> None:
        """Look for work at each announcement, and at intervals for what nobody announced."""
        while True:
            try:
                async with self._storage.watch(DUE_TOPIC) as announced:
                    max_age = 0.0
                    while True:
                        pause = self._pause() if self._paused else await self._look(max_age)
                        max_age = self._sweep_interval
                        with self._resting(pause):
                            await announced.wait()
                            max_age = 0.0
            except EnvironmentFault as error:
                _log.warning("cannot hear of work: %s", error)
                await self._look_unannounced()

    async def _look_unannounced(self) -> None:
        """One look without announcements: listening can fail where asking does not (no room for a connection, say)."""
        with self._resting(self._pause()):
            await trio.sleep_forever()
        if self._paused:
            return
        try:
            await self._look()
        except EnvironmentFault as error:
            _log.warning("cannot look for work: %s", error)

    def _resting(self, seconds: float) -> trio.CancelScope:
        self._rest = trio.move_on_after(0 if self._hurried else seconds)
        return self._rest

    def _pause(self) -> float:
        return self._interval * random.uniform(0.5, 1.0)  # noqa: S311 - keeps the polls of many workers apart

    async def _look(self, max_age: float = 0.0) -> float:
        """Adopt a batch; gives the seconds to pause before the next one.

        Args:
            max_age: Seconds that the knowledge of where nothing is due may be old.
        """
        self._hurried = False
        await self._adopt_strays()
        most = _BATCH << min(max(self._full_batches - _PATIENCE, 0), _DOUBLINGS)
        found = await self._storage.due_sagas(most, max_age=max_age)
        due, workers, now = (
            len(found),
            await self._storage.list_workers(max_age=self._sweep_interval),
            self._storage.now(),
        )
        alive = [worker for worker in workers if worker.lease_until > now]
        self.liveness.heed(alive)
        self._standing_back.others = max(len(alive) - 1, 0)
        self._standing_back.forget_ended()
        for worker in workers:
            if worker.lease_until <= now and len(found) < most:
                found += await self._storage.orphaned_sagas(worker.worker_id, most - len(found))
        found += await self._waiting_for_new_handlers()
        # Python's sort is stable: shuffling first leaves the order within one priority random.
        random.shuffle(found)
        found.sort(key=lambda saga: -saga.priority)
        await self._adopt_all(found)
        if len(found) < most:
            self._full_batches = 0
            return self._pause()
        self._full_batches += 1
        # There is more. What a lost worker left is shared with the others: they need a moment to notice it.
        return self._pause() / 2 if len(found) > due and len(alive) > 1 else 0.0

    async def _waiting_for_new_handlers(self) -> list[AdoptableSaga]:
        """Sagas that wait for a handler that was registered here lately: they go on at once.

        Each name is looked for several times: a saga can be another worker's at the moment.
        """
        now, names = trio.current_time(), self._handlers.names()
        for name in names - self._new_handlers.keys():
            self._new_handlers[name] = now + _NEW_FOR
        new = {name for name in names if self._new_handlers[name] > now}
        found: list[AdoptableSaga] = []
        if new:
            for name in new & (await self._storage.missing_handlers()).keys():
                found += await self._storage.waiting_sagas(name, _BATCH)
        for saga in found:
            self._standing_back.forget(saga.saga_id)
        return found

    async def _adopt_all(self, found: list[AdoptableSaga]) -> None:
        waiting = iter(found)

        async def lane() -> None:
            for saga in waiting:
                await self._adopt(saga)

        async with trio.open_nursery() as nursery:
            for _ in range(min(_AT_ONCE, len(found))):
                nursery.start_soon(lane)

    async def _adopt(self, saga: AdoptableSaga) -> None:
        if self._sagas.get(saga.saga_id) is not None or self._standing_back.is_for_others(saga.saga_id):
            return
        try:
            await self._sagas.adopt(saga.saga_id, saga.epoch, saga.previous)
        except (OwnershipLost, SagaNotFound, NotStarted):
            return  # another worker was faster, or it is no longer there, or we are stopping: all as it should be
        except UnreadableSaga as error:
            level = logging.ERROR if self._standing_back.unreadable(saga.saga_id) else logging.DEBUG
            _log.log(
                level, "saga %s is left to other workers: %s", saga.saga_id, error, extra={"saga_id": saga.saga_id}
            )
        except EnvironmentFault as error:
            _log.warning("could not adopt saga %s: %s", saga.saga_id, error, extra={"saga_id": saga.saga_id})

    async def _adopt_strays(self) -> None:
        for saga_id in self._sagas.strays.due():
            if self._sagas.get(saga_id) is not None:
                self._sagas.strays.forget(saga_id)
                continue
            meta = await self._storage.saga_meta(saga_id)
            if self._sagas.strays.asked_for(saga_id):
                continue  # what we read may be what they have just made of it
            if meta is None or meta.owner != self._sagas.worker_id:
                self._sagas.strays.forget(saga_id)
            elif meta.status.is_final:
                # Adopted to be resumed, and the operator's decision got lost on the way: it rests as it did.
                with suppress(OwnershipLost, SagaNotFound):  # somebody resumes it in this moment
                    await self._storage.release_saga(saga_id, meta.epoch, None)
                self._sagas.strays.forget(saga_id)
            elif (opening := self._sagas.strays.opening(saga_id)) is not None and (meta.epoch, meta.length) == (1, 1):
                with suppress(NotStarted):  # our lease is ending, and with it our ownership
                    self._sagas.open(opening, meta)
            else:
                await self._adopt(AdoptableSaga(saga_id, meta.epoch, meta.priority, meta.owner))
