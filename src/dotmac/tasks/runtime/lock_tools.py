"""What everything that deals with locks in one runtime shares, and the one way of giving a lock up."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from ..errors import EnvironmentFault, LockNotAcquired, NotStarted
from ..storage.protocol import StorageProtocol
from .lock_renewals import LockRenewals
from .lock_wakeups import Wakeups

SIGN_OFF = 1.0
"""Seconds that giving up may take although somebody waits for it who was cancelled."""

_RETRY = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LockTools:
    """Shared by all locks of a runtime.

    Attributes:
        owner: Names the process for people.
    """

    storage: StorageProtocol
    renewals: LockRenewals
    wakeups: Wakeups
    owner: str

    async def give_up(self, name: str, token: str) -> None:
        """Free the lock, or leave its queue, whichever it is, even if we are being cancelled.

        Raises nothing for a storage that does not answer: what brought us here counts, and the lease ends by itself.
        """
        problem: Exception | None = None
        with trio.move_on_after(SIGN_OFF, shield=True):
            while True:
                try:
                    await self.storage.free_lock(name, token)
                except EnvironmentFault as error:
                    problem = error
                except NotStarted as error:
                    problem = error  # the runtime ended before the body that it cancelled
                    break
                else:
                    return
                await trio.sleep(_RETRY)
            told = problem or f"no answer within {SIGN_OFF:g} s"
        _log.warning("the lock %r could not be given up, its lease will end by itself: %s", name, told)


def not_free(name: str) -> LockNotAcquired:
    """The error for who does not wait."""
    return LockNotAcquired(f"the lock {name!r} is not free")


def stopped() -> NotStarted:
    """The error for who asks too late."""
    return NotStarted("the runtime is stopping, or not running")
