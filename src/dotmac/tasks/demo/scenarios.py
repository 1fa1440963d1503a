"""The three scenarios: what is started, what is done to it, and which promises are then checked.

What is shown and checked is read back from the storage (the saga, its history) and from the service's ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import trio

from ..models import SagaHistoryEntry, SagaWorkflow
from . import promises
from .ledger import Entry
from .promises import Finding
from .sagas import TENANT, DemoSaga, onboarding, order_interrupted, order_without_courier
from .stage import Stage

_LOOK = 0.1  # seconds between two looks at the history
_PATIENCE = 30.0  # seconds until a scenario that does not end is given up
_CONFIRMATION = 20.0  # seconds that the interrupted charge would take to answer


@dataclass(frozen=True, slots=True)
class Remark:
    """Something the demo itself did, to be shown among the facts of the history."""

    timestamp: datetime
    text: str


@dataclass(slots=True)
class Scene:
    """One scenario at one moment.

    Attributes:
        title: Shown above it.
        began: The storage's time (UTC) when the scenario began.
        now: The storage's time (UTC).
        saga: As it stands; None before it was started.
        history: All facts so far, oldest first.
        remarks: What the demo did, oldest first.
    """

    title: str
    began: datetime
    now: datetime
    saga: SagaWorkflow | None = None
    history: list[SagaHistoryEntry] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario."""

    title: str
    findings: list[Finding]
    entries: list[Entry]


class Screen(Protocol):
    """Shows scenes; each method returns at once."""

    def begin(self, scene: Scene) -> None:
        """A scenario begins."""
        ...

    def update(self, scene: Scene) -> None:
        """It went on, or only time went by."""
        ...

    def end(self, scene: Scene) -> None:
        """It is over, whatever came of it."""
        ...


async def run_scenarios(stage: Stage, screen: Screen) -> list[Result]:
    """All three, one after the other."""
    return [await _Play(title, stage, screen).run(act, check) for title, act, check in _SCENARIOS]


class _Play:
    """One scenario while it runs."""

    def __init__(self, title: str, stage: Stage, screen: Screen) -> None:
        self.stage = stage
        self._screen = screen
        self._saga_id: str | None = None
        self._scene = Scene(title, self._now(), self._now())

    async def run(self, act: Callable[[_Play], Awaitable[None]], check: promises.Check) -> Result:
        """Act until the saga's end and check what was promised; one that takes too long broke a promise as well."""
        scene = self._scene
        self._screen.begin(scene)
        try:
            with trio.move_on_after(_PATIENCE):
                await act(self)
                await self.until(lambda: False)
            await self._look()
        finally:
            self._screen.end(scene)
        findings: list[Finding] = []
        if scene.saga is None or not scene.saga.status.is_final:
            findings.append(Finding(f"it ends within {_PATIENCE:.0f} s", kept=False))
        if scene.saga is not None:
            findings += check(scene.saga, scene.history, self.entries())
        return Result(scene.title, findings, self.entries())

    async def start_here(self, saga: DemoSaga) -> None:
        """Start the saga in the runtime that stays."""
        handle = await self.stage.manager.start_saga(
            tenant_id=TENANT, workflow_type=saga.workflow_type, steps=saga.steps
        )
        self.follow(handle.saga_id)

    def follow(self, saga_id: str) -> None:
        """Show this saga from now on."""
        self._saga_id = saga_id

    def remark(self, text: str) -> None:
        """Say what the demo does."""
        self._scene.remarks.append(Remark(self._now(), text))

    def entries(self) -> list[Entry]:
        """What the saga asked of the service so far."""
        return [] if self._saga_id is None else self.stage.ledger.entries(self._saga_id)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Show what happens until the condition holds or the saga is at its end."""
        while True:
            await self._look()
            if condition() or (self._scene.saga is not None and self._scene.saga.status.is_final):
                return
            await trio.sleep(_LOOK)

    async def _look(self) -> None:
        scene, manager = self._scene, self.stage.manager
        if self._saga_id is not None:
            scene.saga = await manager.get_saga(self._saga_id)
            scene.history = await manager.get_saga_history(self._saga_id)
        scene.now = self._now()
        self._screen.update(scene)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.stage.manager.storage.now(), UTC)


async def _succeeds(play: _Play) -> None:
    await play.start_here(onboarding())


async def _is_undone(play: _Play) -> None:
    await play.start_here(order_without_courier())


async def _is_taken_over(play: _Play) -> None:
    async with play.stage.doomed() as runtime:
        play.follow(await runtime.start_saga(order_interrupted(_CONFIRMATION)))
        # The worst moment: the card is charged, and nobody has written that down.
        await play.until(lambda: any(entry.effect == "charge_card" for entry in play.entries()))
        play.remark(f"killed: {await runtime.kill()}")
    play.remark("another takes over once this is known: at the latest when the dead worker's lease ends")


_SCENARIOS = (
    ("1. It succeeds, though the mail server is busy at first", _succeeds, promises.of_success),
    ("2. The third step is refused, so the others are undone", _is_undone, promises.of_compensation),
    ("3. Its runtime is killed in mid-step, another goes on", _is_taken_over, promises.of_takeover),
)
