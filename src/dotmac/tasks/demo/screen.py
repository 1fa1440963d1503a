"""The demo's two screens: a live view in a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console, Group, OverflowMethod, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from . import words
from .scenarios import Result, Scene, Screen

_RECENT = 6  # facts under the steps: three steps, the newest facts and the frame fit 24 lines


def make_screen(console: Console) -> Screen:
    """The live view if this console can redraw, else plain lines."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveScreen(console)
    return PlainScreen(console)


class PlainScreen:
    """One line per fact, as it comes: for pipes, files and terminals that cannot redraw."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0

    def begin(self, scene: Scene) -> None:
        """See `Screen`."""
        self._shown = 0
        self._console.print(Text(f"\n{scene.title}", style="bold"), soft_wrap=True)

    def update(self, scene: Scene) -> None:
        """See `Screen`."""
        # A remark may carry an earlier time than a fact read after it; what was printed stays printed.
        lines = _facts(scene)
        for line in lines[self._shown :]:
            self._console.print(line, soft_wrap=True)
        self._shown = len(lines)

    def end(self, scene: Scene) -> None:
        """See `Screen`."""
        if scene.saga is not None:
            self._console.print(f"  {words.heading(scene.saga, _seconds(scene, scene.now))}", soft_wrap=True)


class LiveScreen:
    """A panel per scenario, redrawn while it runs, that stays when it is over."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._ascii = console.options.ascii_only
        self._overflow: OverflowMethod = "crop" if self._ascii else "ellipsis"

    def begin(self, scene: Scene) -> None:
        """See `Screen`."""
        # No refresh thread: the scenario looks several times a second and each look redraws.
        self._live = Live(self._panel(scene), console=self._console, auto_refresh=False)
        self._live.start()

    def update(self, scene: Scene) -> None:
        """See `Screen`."""
        if self._live is not None:
            self._live.update(self._panel(scene), refresh=True)

    def end(self, scene: Scene) -> None:
        """See `Screen`."""
        if self._live is not None:
            # What stays shows everything; only a panel that is still redrawn must fit the terminal.
            self._live.update(self._panel(scene, everything=True))
            self._live.stop()
            self._live = None

    def _panel(self, scene: Scene, *, everything: bool = False) -> RenderableType:
        parts: list[RenderableType] = []
        saga = scene.saga
        style = "dim"
        if saga is not None:
            style = words.MARKS[saga.status][2]
            parts += [Text(words.heading(saga, _seconds(scene, scene.now)), style=style), self._steps(scene), Text()]
        facts = _facts(scene) if everything else _facts(scene)[-_RECENT:]
        parts += facts + [Text()] * (_RECENT - len(facts))
        for part in parts:
            if isinstance(part, Text):
                part.no_wrap, part.overflow = True, self._overflow
        return Panel(Group(*parts), title=Text(scene.title, style="bold"), title_align="left", border_style=style)

    def _steps(self, scene: Scene) -> Table:
        table = Table.grid(padding=(0, 2))
        for _ in range(2):
            table.add_column(no_wrap=True, overflow=self._overflow)
        table.add_column(no_wrap=True, overflow=self._overflow, ratio=1)
        for step in scene.saga.steps if scene.saga is not None else ():
            unicode_mark, ascii_mark, style = words.MARKS[step.status]
            mark = ascii_mark if self._ascii else unicode_mark
            table.add_row(
                Text(mark, style=style),
                Text(step.name, style=style),
                Text(words.progress(step, scene.now), style=style),
            )
        return table


def show_summary(console: Console, results: Sequence[Result]) -> None:
    """Which promises were checked, whether each held, and every effect with its token."""
    console.print()
    for result in results:
        console.print(Text(result.title, style="bold"))
        findings = Table.grid(padding=(0, 2))
        for finding in result.findings:
            mark, style = ("kept", "green") if finding.kept else ("BROKEN", "bold red")
            findings.add_row("", Text(mark, style=style), Text(finding.text))
        console.print(findings)
    table = Table(title="Requests to the service, by token", title_justify="left", title_style="bold", box=None)
    for column, justify in (("token", "left"), ("effect", "left"), ("asked", "right"), ("done", "right")):
        table.add_column(column, justify="right" if justify == "right" else "left", overflow="fold")
    for token, effect, asked, done in _by_token(results):
        table.add_row(token, effect, str(asked), str(done))
    console.print()
    console.print(table)


def _by_token(results: Sequence[Result]) -> list[tuple[str, str, int, int]]:
    rows: dict[str, tuple[str, str, int, int]] = {}
    for entry in (entry for result in results for entry in result.entries):
        _, _, asked, done = rows.get(entry.token, ("", "", 0, 0))
        rows[entry.token] = (entry.token, entry.effect, asked + 1, done + entry.performed)
    return list(rows.values())


def _facts(scene: Scene) -> list[Text]:
    """Facts and remarks by time, each with the seconds since the scenario began."""
    lines = [(entry.timestamp, *words.fact(entry)) for entry in scene.history]
    lines += [(remark.timestamp, f"* {remark.text}", "bold red") for remark in scene.remarks]
    lines.sort(key=lambda line: line[0])
    return [Text(f"  {_seconds(scene, at):5.1f} s  {text}", style=style) for at, text, style in lines]


def _seconds(scene: Scene, at: datetime) -> float:
    return max((at - scene.began).total_seconds(), 0.0)
