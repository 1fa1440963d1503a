"""The demo from the opening line to the exit code."""

from __future__ import annotations

import signal
import tempfile
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import trio
from rich.console import Console

from ..errors import StorageMisconfigured
from ..storage.embedded import find_server_binary
from .scenarios import Result, run_scenarios
from .screen import make_screen, show_summary
from .stage import Stage, memory_stage

PACE = 0.5
"""Seconds that each attempt takes, so that it can be watched."""


class OpenStage(Protocol):
    """Sets the stage in a folder that is removed afterwards."""

    def __call__(self, folder: Path, pace: float) -> AbstractAsyncContextManager[Stage]:
        """Enter it to have the stage."""
        ...


def best_stage() -> OpenStage:
    """A real server where one can be started (the ``embedded`` extra), else memory."""
    try:
        from .valkey import valkey_stage  # noqa: PLC0415 - needs the redis extra
    except ModuleNotFoundError:
        return memory_stage
    try:
        find_server_binary()
    except StorageMisconfigured:
        return memory_stage
    return valkey_stage


def run_demo(console: Console, open_stage: OpenStage | None = None) -> int:
    """Show the three sagas.

    Args:
        console: Where to.
        open_stage: Where they run; None: `best_stage`.

    Returns:
        The exit code: 0 if every promise held, 1 if one did not, 128 + the signal's number if a signal ended it.
    """
    try:
        return trio.run(play, console, open_stage or best_stage())
    except BaseExceptionGroup as group:
        # The console exits when its pipe is closed; nobody is left to tell anything else.
        _, others = group.split(SystemExit)
        if others is not None:
            raise others from None
        return 1


async def play(console: Console, open_stage: OpenStage) -> int:
    """As `run_demo`, inside a trio run."""
    caught: list[int] = []
    results: list[Result] = []
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(_listen, caught, nursery.cancel_scope)
        with tempfile.TemporaryDirectory(prefix="dotmac-tasks-demo-") as folder:
            async with open_stage(Path(folder), PACE) as stage:
                console.print(f"dotmac-tasks demo: three sagas on {stage.title}", soft_wrap=True)
                results = await run_scenarios(stage, make_screen(console))
        scope.cancel()
    if caught:
        console.print("interrupted")
        return 128 + caught[0]
    show_summary(console, results)
    return _verdict(console, results)


async def _listen(
    caught: list[int], all_of_it: trio.CancelScope, *, task_status: trio.TaskStatus[trio.CancelScope]
) -> None:
    """Turn a signal into an orderly end: stages and screens clean up behind themselves."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, trio.CancelScope() as scope:
        task_status.started(scope)
        async for number in signals:
            caught.append(number)
            all_of_it.cancel()


def _verdict(console: Console, results: list[Result]) -> int:
    broken = [
        f"{result.title}: {finding.text}" for result in results for finding in result.findings if not finding.kept
    ]
    console.print()
    if not broken:
        console.print("Every promise held.", style="bold green")
        return 0
    for promise in broken:
        console.print(f"This promise did not hold: {promise}", style="bold red", markup=False, soft_wrap=True)
    return 1
