"""The demo: what it shows, what it finds when a promise does not hold, and how it ends early."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from rich.console import Console

from dotmac.tasks import MemoryStorage
from dotmac.tasks.demo import app
from dotmac.tasks.demo.ledger import Ledger
from dotmac.tasks.demo.scenarios import Scene, run_scenarios
from dotmac.tasks.demo.screen import LiveScreen, PlainScreen, make_screen
from dotmac.tasks.demo.stage import MemoryStage, Stage, memory_stage

_COMMAND = [sys.executable, "-c", "from dotmac.tasks.cli import main; main()", "demo"]


class Forgetful(Ledger):
    """A service that does everything it is asked for, however often."""

    def is_new(self, token: str, known: set[str]) -> bool:
        return True


@asynccontextmanager
async def forgetful_stage(folder: Path, pace: float) -> AsyncIterator[Stage]:
    stage = MemoryStage(MemoryStorage(), Forgetful(folder / "ledger"), pace)
    async with stage.manager:
        yield stage


@asynccontextmanager
async def endless_stage(folder: Path, pace: float) -> AsyncIterator[Stage]:
    async with memory_stage(folder, pace * 1000) as stage:
        yield stage


def plain() -> Console:
    return Console(file=io.StringIO(), width=100)


def terminal(width: int = 80, height: int = 24, **environ: str) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        height=height,
        legacy_windows=False,
        _environ={"TERM": "xterm-256color", **environ},
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def test_it_shows_retry_compensation_and_takeover_and_every_promise_holds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    console = plain()
    assert await app.play(console, memory_stage) == 0
    text = written(console)
    assert "\x1b" not in text
    told = [line.partition(" s  ")[2] for line in text.splitlines()]
    for facts in (
        ["Open Mailbox: attempt 1", "Open Mailbox: failed, the service is busy, try again", "Open Mailbox: attempt 2"],
        ["Book Courier: failed, no courier goes there", "undo Charge Card: attempt 2", "undo Reserve Stock: done"],
        ["* killed: its tasks were torn down in mid-step, without a drain", "Charge Card: attempt 2", "Ship: done"],
    ):
        remaining = iter(told)
        assert all(fact in remaining for fact in facts), f"not shown in this order: {facts}"
    assert re.search(r"taken over by worker \w+, epoch 2", text)
    assert re.search(r"charge_card +2 +1 *$", text, re.MULTILINE)
    assert text.endswith("Every promise held.\n")


async def test_a_service_that_forgets_tokens_is_found_out(autojump_clock: trio.testing.MockClock) -> None:
    console = plain()
    assert await app.play(console, forgetful_stage) == 1
    broken = [line for line in written(console).splitlines() if line.startswith("This promise did not hold: ")]
    assert len(broken) == 1
    assert broken[0].endswith("done exactly once each: reserve_stock, charge_card, ship")


async def test_a_saga_that_does_not_end_breaks_a_promise(autojump_clock: trio.testing.MockClock) -> None:
    console = plain()
    assert await app.play(console, endless_stage) == 1
    assert written(console).count("it ends within 30 s") == 6  # in the summary and at the end, for three scenarios


async def test_the_effects_and_attempts_are_those_of_the_history(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with memory_stage(tmp_path, 0.5) as stage:
        results = await run_scenarios(stage, PlainScreen(plain()))
        sagas = (await stage.manager.list_sagas()).sagas
    assert [result.title[0] for result in results] == ["1", "2", "3"]
    assert sorted(saga.status for saga in sagas) == ["compensated", "completed", "completed"]
    assert [(entry.effect, entry.performed) for entry in results[2].entries] == [
        ("reserve_stock", True),
        ("charge_card", True),
        ("charge_card", False),
        ("ship", True),
    ]
    fences = [entry.fence for entry in results[2].entries]
    assert fences == sorted(set(fences))


class Tall(LiveScreen):
    """A live screen that notes how many lines each frame takes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.heights: list[int] = []
        self._measuring = console

    def update(self, scene: Scene) -> None:
        super().update(scene)
        self.heights.append(len(self._measuring.render_lines(self._panel(scene))))


@pytest.mark.parametrize("width", [30, 80, 200])
async def test_the_live_view_fits_small_terminals(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, width: int
) -> None:
    console = terminal(width=width)
    screen = Tall(console)
    async with memory_stage(tmp_path, 0.5) as stage:
        await run_scenarios(stage, screen)
    assert max(screen.heights) <= 23
    visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written(console))
    assert max(map(len, re.split(r"[\r\n]", visible))) <= width


async def test_no_color_is_honoured(autojump_clock: trio.testing.MockClock) -> None:
    colours = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    quiet, loud = terminal(NO_COLOR="1"), terminal()
    for console in (quiet, loud):
        assert await app.play(console, memory_stage) == 0
    assert colours.search(written(loud))
    assert not colours.search(written(quiet))


def test_only_a_terminal_that_can_redraw_gets_the_live_view() -> None:
    assert isinstance(make_screen(terminal()), LiveScreen)
    assert isinstance(make_screen(terminal(TERM="dumb")), PlainScreen)
    assert isinstance(make_screen(plain()), PlainScreen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        _COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "attempt 1" in line:
                break
        process.send_signal(number)
        assert process.stdout.read().splitlines()[-1] == "interrupted"
        assert process.wait(30) == 128 + number
        assert process.stderr.read() == ""
    # A path too long for a socket goes through a link in a directory that stays for the next time.
    assert not list(tmp_path.glob("dotmac-tasks-demo-*"))


def test_a_reader_that_goes_away_ends_it_without_a_traceback() -> None:
    with subprocess.Popen(
        _COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == ""


async def test_a_terminal_without_unicode_gets_plain_marks(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    console = Console(file=file, force_terminal=True, color_system=None, width=80)
    async with memory_stage(tmp_path, 0.5) as stage:
        await run_scenarios(stage, LiveScreen(console))
    file.flush()
    assert isinstance(file.buffer, io.BytesIO)
    assert b"| +  Ship " in file.buffer.getvalue()


def test_the_ledger_counts_a_token_once_for_all_who_share_its_file(tmp_path: Path) -> None:
    one, other = Ledger(tmp_path / "ledger"), Ledger(tmp_path / "ledger")
    assert one.entries("s") == []
    assert one.request("charge", "s:0", 1).performed
    assert not other.request("charge", "s:0", 2).performed
    assert other.request("charge", "t:0", 1).performed
    assert [entry.fence for entry in one.entries("s")] == [1, 2]
