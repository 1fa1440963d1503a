"""What happens in this process, as it happens: kept for a while, so that a listener can come back for what it missed.

Fed by the metrics hooks, which tell of the sagas that this process runs. Everything about the whole namespace is
counted from the storage, once for all listeners.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import trio

from ..manager import BackgroundOperationsManager
from ..metrics import register_metrics_hooks

POINTS = (
    "saga_created",
    "saga_status_changed",
    "saga_taken_over",
    "saga_step_started",
    "saga_step_completed",
    "saga_step_failed",
    "saga_step_retried",
    "saga_step_compensated",
)
KEPT = 2000
"""Happenings that are kept for listeners who come back."""

_TOLD = ("saga_id", "status", "step", "attempt", "seconds", "undo", "error", "previous", "worker", "epoch")
_COUNTS_LAST = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened: what, to what, whose, and what else is known."""

    number: int
    point: str
    subject: str
    tenant_id: str
    details: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """As JSON; parameters, results and metadata are not among it."""
        told = {name: self.details[name] for name in _TOLD if self.details.get(name) is not None}
        return {"subject": self.subject, "tenant_id": self.tenant_id, **told}


class Feed:
    """The happenings of one process.

    Attributes:
        run: Names this start of the process: numbers of another one mean nothing here.
        number: Of the newest happening.
    """

    def __init__(self) -> None:
        self.run = secrets.token_hex(4)
        self.number = 0
        self._kept: deque[Happening] = deque(maxlen=KEPT)
        self._news = trio.Event()
        self._sagas: dict[str, list[trio.Event]] = {}
        self._counts: tuple[float, dict[str, int]] | None = None
        self._counting = trio.Lock()

    def install(self) -> Callable[[], None]:
        """Take happenings from now on; gives a function that ends it."""
        return register_metrics_hooks(**{f"{point}_hook": partial(self.take, point) for point in POINTS})

    def take(self, point: str, subject: str, tenant_id: str, details: dict[str, Any]) -> None:
        """Keep a happening, and wake whoever waits for it."""
        self.number += 1
        self._kept.append(Happening(self.number, point, subject, tenant_id, details))
        if self._news.statistics().tasks_waiting:
            self._news.set()
            self._news = trio.Event()
        for event in self._sagas.get(details.get("saga_id", ""), ()):
            event.set()

    def since(self, number: int) -> list[Happening]:
        """Happenings after this number that are still kept, oldest first."""
        return list(islice(self._kept, max(len(self._kept) - (self.number - number), 0), None))

    async def news(self, number: int, seconds: float) -> None:
        """Return when something happened after this number, or when the seconds are over."""
        if self.number > number:
            return
        with trio.move_on_after(seconds):
            await self._news.wait()

    @contextmanager
    def listening_to(self, saga_id: str) -> Iterator[Callable[[float], Awaitable[bool]]]:
        """Give a function that waits for news of one saga, or for so many seconds; True: news came."""
        here = [trio.Event()]
        self._sagas.setdefault(saga_id, []).append(here[0])

        async def wait(seconds: float) -> bool:
            with trio.move_on_after(seconds):
                await here[0].wait()
            came = here[0].is_set()
            listeners = self._sagas[saga_id]
            listeners.remove(here[0])
            here[0] = trio.Event()
            listeners.append(here[0])
            return came

        try:
            yield wait
        finally:
            self._sagas[saga_id].remove(here[0])
            if not self._sagas[saga_id]:
                del self._sagas[saga_id]

    async def counts(self, manager: BackgroundOperationsManager) -> dict[str, int]:
        """How many sagas of each status the namespace has: at most two seconds old."""
        async with self._counting:
            now = trio.current_time()
            if self._counts is None or now - self._counts[0] >= _COUNTS_LAST:
                counted = await manager.count_sagas()
                self._counts = (now, {str(status): number for status, number in counted.items()})
            return self._counts[1]
