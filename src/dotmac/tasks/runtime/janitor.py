"""Removes what is past its retention, at intervals."""

from __future__ import annotations

import logging
import random

import trio

from ..errors import EnvironmentFault
from .environment import SagaEnvironment

_BATCH = 500
_log = logging.getLogger(__name__)


class Janitor:
    """The background cleanup. Several may run at once; what one removed the others do not find."""

    def __init__(self, environment: SagaEnvironment) -> None:
        self._storage = environment.storage
        self._interval = environment.settings.cleanup_interval

    async def run(self) -> None:
        """Clean up after each interval, in batches, so that nobody waits long behind it."""
        while True:
            await trio.sleep(self._interval * random.uniform(0.8, 1.0))  # noqa: S311 - keeps janitors apart
            try:
                while (purged := await self._storage.purge(_BATCH)).more:
                    _log.debug("removed %d sagas and %d idempotency records", purged.sagas, purged.records)
            except EnvironmentFault as error:
                _log.warning("cannot clean up: %s", error)
