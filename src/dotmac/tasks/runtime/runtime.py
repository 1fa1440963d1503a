"""The supervision tree: a worker, the locks, the keeper of claims, and the janitor.

What can go wrong outside (storage gone, lease lost) is part of a worker's life and answered here with a new worker;
only what should not happen reaches the supervisor, which restarts the part, and gives up when that does not help.
"""

from __future__ import annotations

import logging
import math

import trio

from ..actors import ChildLife, ChildSpec, Supervisor, current_child
from ..errors import EnvironmentFault, OwnershipLost, StorageUnavailable
from ..storage.patience import is_patient
from .background import BackgroundTasks
from .claims import ClaimKeeper
from .environment import SagaEnvironment
from .janitor import Janitor
from .saga_actor import SagaActor
from .stall import StallWatch
from .worker import Worker

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LONGEST_GAP = 5.0  # seconds that a call waits for a worker while there is none
_SPARE = 10.0  # seconds beyond the drain that a worker may take to sign off before it is cancelled
_log = logging.getLogger(__name__)


class Runtime:
    """Everything that runs behind a manager.

    Attributes:
        claims: Keeps claims on idempotency keys alive.
        background: Tasks that outlive the calls that asked for them.
        over: Whether it has ended.
    """

    def __init__(self, environment: SagaEnvironment) -> None:
        self.environment = environment
        self.claims = ClaimKeeper(environment.storage, environment.losses, environment.running)
        self.background = BackgroundTasks()
        self.over = False
        self._worker: Worker | None = None
        self._ready = trio.Event()
        self._trouble: Exception | None = None
        self._gap_began = math.inf  # on trio's clock, which is not there yet
        self._drain_seconds = environment.settings.drain_timeout
        longest = self._drain_seconds + environment.settings.cancel_grace + _SPARE
        self._drained_at = math.inf
        children = [
            ChildSpec("losses", environment.losses.run, shutdown_seconds=0),
            ChildSpec("claims", self.claims.run, shutdown_seconds=0),
            ChildSpec("background", self.background.run, shutdown_seconds=0),
            ChildSpec("stall watch", StallWatch(environment.settings.worker_lease / 3).run, shutdown_seconds=0),
            environment.locks.supervisor.child_spec(),
            # Stopped before what its work may need: locks, and the keeper of its claims.
            ChildSpec("operations", self._let_operations_end, shutdown_seconds=longest),
        ]
        if environment.works:
            children += [
                ChildSpec("janitor", Janitor(environment).run, shutdown_seconds=0),
                ChildSpec("worker", self._keep_working, shutdown_seconds=longest, handshake=True),
            ]
        self._supervisor = Supervisor("runtime", children)

    async def worker(self) -> Worker:
        """The present worker. Between two of them it waits, so that callers do not notice a lease that was lost.

        Raises:
            StorageUnavailable: There has been none for 5 s, before or after the call; the message has what the
                storage said last.
        """
        if self._worker is None:  # nearly never, and a scope costs as much as the rest of the call
            with trio.move_on_at(self._gap_began + _LONGEST_GAP):
                while self._worker is None:
                    await self._ready.wait()
        worker = self._worker
        if worker is None:
            reason = self._trouble or "it is being started"
            seconds = trio.current_time() - self._gap_began
            raise StorageUnavailable(f"this process has had no worker for {seconds:.1f} s: {reason}")
        return worker

    def local_actor(self, saga_id: str) -> SagaActor | None:
        """The saga's actor, if it is run by this process at the moment."""
        return None if self._worker is None else self._worker.sagas.get(saga_id)

    def cancel_here(self, saga_id: str, reason: str) -> None:
        """Hand a stored cancel request to the saga's actor, if this process runs the saga, ahead of the notice."""
        if self._worker is not None:
            self._worker.sagas.cancel(saga_id, reason)

    async def run(self, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `request_stop`. Raises what the supervisor could not answer."""
        self.environment.permits.open()
        self._gap_began = trio.current_time()
        is_patient.set(True)  # for this task and all below it
        try:
            await self._supervisor.run(task_status=task_status)
        finally:
            self.over = True

    def request_stop(self, *, hurry: bool = False) -> None:
        """Drain and end; in a hurry, cut running attempts off at once, also while a drain goes on already."""
        if hurry:
            self._drain_seconds = 0.0
            self.claims.hasten()
            if self._worker is not None:
                self._worker.hasten()
        self._drained_at = min(self._drained_at, trio.current_time() + self._drain_seconds)
        self._supervisor.request_stop()

    async def _let_operations_end(self) -> None:
        await current_child().stopping.wait()
        self.environment.permits.close()
        await self.claims.drain(self._drained_at)

    async def _keep_working(self) -> None:
        child = current_child()
        pause = _FIRST_PAUSE
        while not child.stopping.is_set():
            failure = await self._work(Worker(self.environment), child)
            if self._worker is not None:
                self._gap_began = trio.current_time()
            self._worker, self._trouble = None, failure
            if failure is None:
                return
            if not child.is_started:
                if isinstance(failure, OwnershipLost):  # of a lease that nobody had yet
                    raise StorageUnavailable(f"the storage took longer than a lease: {failure}") from failure
                raise failure
            if isinstance(failure, OwnershipLost):
                _log.error("%s; others may adopt its sagas; going on as a new worker", failure)
                pause = _FIRST_PAUSE
            else:
                _log.warning("no worker: %s; trying again in %.1f s", failure, pause)
            with trio.move_on_after(pause):
                await child.stopping.wait()
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _work(self, worker: Worker, child: ChildLife) -> OwnershipLost | EnvironmentFault | None:
        """One worker's life; what ended it, or None if it was asked to stop."""
        failure: OwnershipLost | EnvironmentFault | None = None

        def ready() -> None:
            self._worker = worker
            self._ready.set()
            self._ready = trio.Event()
            child.started()
            nursery.start_soon(stop_when_told)

        async def stop_when_told() -> None:
            await child.stopping.wait()
            await worker.stop(self._drain_seconds)

        async with trio.open_nursery() as nursery:
            # Caught inside the nursery, so that it arrives as itself and not in a group.
            try:
                await worker.run(ready)
            except (OwnershipLost, EnvironmentFault) as error:
                failure = error
            nursery.cancel_scope.cancel()
        return failure
