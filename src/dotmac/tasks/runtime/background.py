"""Tasks of the runtime that outlive the call that asked for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from ..errors import NotStarted
from ..storage.patience import is_patient


class BackgroundTasks:
    """A nursery of the runtime; a child of its supervisor."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Hold the nursery open until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task in the background. A stop of the runtime cancels it.

        Raises:
            NotStarted: The runtime does not run, or is at its end.
        """
        if self._nursery is None:
            raise NotStarted("the runtime is not running")
        self._nursery.start_soon(_patiently, task)


async def _patiently(task: Callable[[], Awaitable[None]]) -> None:
    is_patient.set(True)  # the context is that of the call, which has a client that waits
    await task()
