"""What every part of a runtime shares: its storage, its settings, its handlers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import trio

from ..jsonvalue import encode
from ..models import OperationStatus
from ..saga.state import SagaState
from ..settings import Settings
from ..storage.key_records import Completion
from ..storage.protocol import StorageProtocol
from .handlers import Handlers
from .lock_service import LockService
from .losses import Losses
from .permits import Permits
from .standing_back import StandingBack
from .unresponsive import RunningHandlers


@dataclass(frozen=True, slots=True)
class SagaEnvironment:
    """Shared by all actors of a runtime.

    Attributes:
        works: Whether sagas are run in this process; if not, they are handed to others.
        awaited: How many handlers of this process wait for the end of each saga.
        solo: Held while a step runs that has lost several workers in a row.
    """

    storage: StorageProtocol
    settings: Settings
    handlers: Handlers
    works: bool = True
    awaited: Counter[str] = field(init=False, default_factory=Counter)
    losses: Losses = field(init=False)
    locks: LockService = field(init=False)
    permits: Permits = field(init=False)
    running: RunningHandlers = field(init=False)
    solo: trio.Semaphore = field(init=False, default_factory=lambda: trio.Semaphore(1))
    standing_back: StandingBack = field(init=False, default_factory=StandingBack)

    def __post_init__(self) -> None:
        object.__setattr__(self, "losses", Losses(self.storage, self.settings.saga_retention))
        object.__setattr__(self, "locks", LockService(self.storage, self.losses))
        object.__setattr__(self, "permits", Permits(self.settings.max_running, self.settings.sync_handler_threads))
        object.__setattr__(self, "running", RunningHandlers(self.settings.cancel_grace))

    def completion(self, state: SagaState) -> Completion | None:
        """How the saga's idempotency key ends when the saga does; None if it has no key or is not at its end.

        A parked saga's key stays open: whoever repeats the request is led to the saga, not to a second one.
        """
        key, status = state.definition.idempotency_key, state.status
        if key is None or status not in (OperationStatus.COMPLETED, OperationStatus.COMPENSATED):
            return None
        done = status is OperationStatus.COMPLETED
        return Completion(
            key=key,
            token=None,
            status=OperationStatus.COMPLETED if done else OperationStatus.FAILED,
            result=encode({"saga_id": state.definition.saga_id, "status": str(status)}),
            error=None if done else state.reason,
            ttl=self.settings.default_ttl,
        )
