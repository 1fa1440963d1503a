"""A step's handler inside the lock that its step names.

What the lock adds to the outcomes of an attempt:

- the lock was lost while the handler ran: ``LockLost``, unknown, whatever the handler made of being cancelled: others
  may have been at work beside it;
- the attempt ended before the lock was held: the handler was not invoked, so nothing happened. That the storage does
  not answer is no reason to end it: the attempt waits, as long as its time-out and the saga's deadline allow.
"""

from __future__ import annotations

import logging
from typing import Any

import trio

from ..errors import EnvironmentFault, LockLost
from .context import HandlerContext
from .error_texts import repr_of
from .handlers import Handler
from .lock_body import HoldingOne
from .lock_service import LockService

_PAUSE = 0.5
_log = logging.getLogger(__name__)


class LockedHandler:
    """A handler that is called under a lock.

    Args:
        handler: The handler.
        name: The lock's.
        ttl: Seconds of its lease.
        locks: Of the runtime.

    Attributes:
        invoked: Whether the handler was called.
        what: What it waits for, for messages.
    """

    def __init__(self, handler: Handler, name: str, ttl: float, locks: LockService) -> None:
        self._handler = handler
        self._name = name
        self._ttl = ttl
        self._locks = locks
        self.invoked = False
        self.what = f"the lock {name!r} was granted"
        self.handler = Handler(handler.name, self._call, handler.function, handler.unknown_errors)

    async def _call(self, parameters: dict[str, Any], context: HandlerContext) -> Any:
        while True:
            try:
                async with HoldingOne(
                    self._locks, [self._name], ttl=self._ttl, wait=None, tenant_id=context.tenant_id
                ) as held:
                    self.invoked = True
                    context.lock_fence = held.fence
                    return await self._handler.call(parameters, context)
            except BaseExceptionGroup as group:
                lost = group.subgroup(LockLost)
                if lost is None or not isinstance(group, ExceptionGroup):
                    raise
                raise LockLost(f"{group.exceptions[-1]}; the handler raised {repr_of(group.exceptions[0])}") from group
            except EnvironmentFault as error:
                if self.invoked:
                    raise
                _log.warning("the lock %r of %s is waited for: %s", self._name, context.token, error)
            await trio.sleep(_PAUSE)
