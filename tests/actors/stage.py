"""Children for the tests of supervisors: they log what happens to them, and crash or return when told to."""

from __future__ import annotations

from collections.abc import Callable

import trio

from dotmac.tasks.actors import (
    Backoff,
    ChildSpec,
    Restart,
    RestartIntensity,
    RestartPolicy,
    Strategy,
    Supervisor,
    current_child,
)


def policy(strategy: Strategy = Strategy.ONE_FOR_ONE, restarts: int = 100, wait: float = 1) -> RestartPolicy:
    return RestartPolicy(strategy, RestartIntensity(restarts, 1000), Backoff(wait, 2, max(wait, 8)), lambda: 1.0)


class Stage:
    """Children that log what happens to them, and that crash or return when told to."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.reported: list[tuple[str, Exception]] = []
        self._orders: dict[str, tuple[trio.Event, list[BaseException]]] = {}

    def child(self, name: str, restart: Restart = Restart.PERMANENT, **options: object) -> ChildSpec:
        async def run() -> None:
            self.log.append(f"+{name}")
            told, errors = self._orders[name] = (trio.Event(), [])
            life = current_child()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._cancel_when, life.stopping, nursery)
                    nursery.start_soon(self._cancel_when, told, nursery)
            finally:
                self.log.append(f"-{name}")
            for error in errors:
                raise error

        return ChildSpec(name, run, restart, **options)  # type: ignore[arg-type]  # options of ChildSpec

    async def _cancel_when(self, event: trio.Event, nursery: trio.Nursery) -> None:
        await event.wait()
        nursery.cancel_scope.cancel()

    def end(self, name: str, error: BaseException | None = None) -> None:
        event, errors = self._orders[name]
        if error is not None:
            errors.append(error)
        event.set()

    def report(self, name: str, error: Exception) -> None:
        self.reported.append((name, error))

    def take_log(self) -> str:
        log, self.log = " ".join(self.log), []
        return log


async def deaf() -> None:
    await trio.sleep_forever()


async def run_and(supervisor: Supervisor, act: Callable[[], object]) -> None:
    """Run the supervisor, act once it has started, and wait until it has ended."""
    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.run)
        act()
