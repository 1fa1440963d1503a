"""Rows of the one table, what they were measured on, and the files that are written of them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import chart

from dotmac.tasks.storage.embedded import find_server_binary

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("dotmac-tasks", "trio", "trio-asyncio", "redis", "hiredis", "msgspec")
WIDTHS = (56, 11, 10, 10)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        section: What it belongs to.
        what: Who or what was measured.
        per_second: The rate, in the section's unit.
        p50_ms: Milliseconds of one, median.
        p99_ms: The same, 99th percentile.
        setting: When it was durable, and what else matters.
        figure: What was measured, where it is no rate.
        more: Figures that are in the raw rows only.
    """

    section: str
    what: str
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    setting: str = ""
    figure: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        what, rate, p50, p99 = WIDTHS
        if self.figure:
            figures = f"{self.figure:>{rate + p50 + p99}}"
        else:
            figures = _number(self.per_second, rate, 0) + _number(self.p50_ms, p50, 2) + _number(self.p99_ms, p99, 2)
        return f"  {self.what:{what}}{figures}  {self.setting}".rstrip()


def _number(value: float | None, width: int, digits: int) -> str:
    return " " * width if value is None else f"{value:{width},.{digits}f}"


def machine() -> dict[str, str]:
    """What this is measured on, and when."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "load": f"{os.getloadavg()[0]:.1f} at the start",
        "server": _server(),
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _server() -> str:
    told = subprocess.run([find_server_binary(), "--version"], check=True, capture_output=True, text=True).stdout
    return " ".join(told.split()[:3])


def written(facts: dict[str, str], rows: Iterable[Row]) -> Iterator[str]:
    """The lines of the table, each as soon as its row is there."""
    for name, fact in facts.items():
        yield f"{name}: {fact}"
    what, rate, p50, p99 = WIDTHS
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            columns = "" if row.figure else f"{'per second':>{rate}}{'p50 ms':>{p50}}{'p99 ms':>{p99}}"
            yield ""
            yield f"{section:{what + 2}}{columns:{rate + p50 + p99}}  load average {os.getloadavg()[0]:.1f}"
        yield str(row)


def save(facts: dict[str, str], rows: list[Row], lines: list[str]) -> Path:
    """Write table, raw rows and charts into a folder of their own. Returns the folder."""
    folder = RESULTS / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder.mkdir(parents=True)
    raw = {"machine": facts, "rows": [asdict(row) for row in rows]}
    (folder / "rows.json").write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    (folder / "table.txt").write_text("\n".join([*lines, ""]))
    (folder / "chart.txt").write_text(chart.text(raw["rows"]))  # type: ignore[arg-type] # as they are in the file
    chart.picture(folder / "rows.json", folder / "chart.png")
    return folder
