"""The lock that a step names: waited for before an attempt begins, held while its handler runs.

What the lock adds to the outcomes of an attempt:

- the lock was lost while the handler ran: ``LockLost``, unknown, whatever the handler made of being cancelled: others
  may have been at work beside it;
- the lock was lost before the handler was called, while the attempt was being recorded: nothing happened.

Waiting for the lock is no attempt. A storage that does not answer does not end the wait.
"""

from __future__ import annotations

import logging
from typing import Any

import trio

from ..errors import ActorDied, EnvironmentFault, LockLost, NotStarted
from .context import HandlerContext
from .error_texts import repr_of
from .handlers import Handler
from .lock_body import HoldingOne
from .lock_service import LockService

_PAUSE = 0.5
_log = logging.getLogger(__name__)


class StepLock:
    """One lock for one attempt.

    Args:
        locks: Of the runtime.
        name: The lock's.
        ttl: Seconds of its lease.
        saga: The saga and its tenant, for messages and metrics.

    Attributes:
        held: Whether it was granted.
        invoked: Whether the handler was called under it.
    """

    __slots__ = ("_block", "_name", "_saga_id", "held", "invoked")

    def __init__(self, locks: LockService, name: str, ttl: float, saga: tuple[str, str]) -> None:
        self._name = name
        self._saga_id, tenant_id = saga
        self._block = HoldingOne(locks, [name], ttl=ttl, wait=None, tenant_id=tenant_id)
        self.held = False
        self.invoked = False

    @property
    def lost(self) -> bool:
        """Whether its lease is over although the handler was not called yet."""
        return self._block.lost

    async def acquire(self) -> None:
        """Wait for the lock, as long as it takes. When it is cancelled, nothing is held or queued."""
        while not self.held:
            try:
                await self._block.acquire()
                self.held = True
            except (EnvironmentFault, NotStarted, ActorDied) as error:  # the last two: the locks are being restarted
                _log.warning("saga %s waits for the lock %r: %s", self._saga_id, self._name, error)
                await trio.sleep(_PAUSE)

    async def abandon(self) -> None:
        """Give the lock back without calling the handler."""
        if self.held:
            self.held = False
            await self._block.abandon()

    def around(self, handler: Handler) -> Handler:
        """The handler, to be called under the lock, which is given back afterwards."""

        async def call(parameters: dict[str, Any], context: HandlerContext) -> Any:
            self.held = False
            try:
                async with self._block as held:
                    await trio.lowlevel.checkpoint_if_cancelled()  # the lease may have been lost already
                    self.invoked = True
                    context.lock_fence = held.fence
                    return await handler.call(parameters, context)
            except BaseExceptionGroup as group:
                lost = group.subgroup(LockLost)
                if lost is None or not isinstance(group, ExceptionGroup):
                    raise
                raise LockLost(f"{group.exceptions[-1]}; the handler raised {repr_of(group.exceptions[0])}") from group

        return Handler(handler.name, call, handler.function, handler.unknown_errors, handler.demand)
