"""The rates of a table as bars: in text, and as a picture where matplotlib can be installed beside it.

As a script, ``python chart.py ROWS PICTURE``, it draws the picture; so it runs in an environment that has matplotlib,
which is no dependency of the project.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import NotInstalled, python_with

MATPLOTLIB = ("matplotlib==3.11.2",)
BAR = 60
Bars = dict[str, dict[str, float]]


def bars(rows: list[dict[str, Any]]) -> Bars:
    """What is drawn of the raw rows: rates, by section."""
    found: Bars = {}
    for row in rows:
        if row["per_second"]:
            found.setdefault(row["section"], {})[f"{row['what']} ({row['setting']})"] = row["per_second"]
    return found


def text(rows: list[dict[str, Any]]) -> str:
    """The bars as lines of text."""
    lines = []
    for section, rates in bars(rows).items():
        most = max(rates.values())
        lines += [
            section,
            *(f"{'█' * round(BAR * rate / most):{BAR}} {rate:>9,.0f}  {what}" for what, rate in rates.items()),
        ]
        lines.append("")
    return "\n".join(lines)


def picture(rows: Path, path: Path) -> None:
    """Draw the bars of a file of raw rows, or say why that is not possible."""
    try:
        python = python_with("chart", MATPLOTLIB)
    except NotInstalled as reason:
        print(f"no picture, matplotlib was not installed: {reason}", file=sys.stderr)
        return
    subprocess.run([python, "-m", "benchmarks.chart", rows, path], check=True, cwd=Path(__file__).parents[1])


def draw(found: Bars, path: Path) -> None:
    """Draw one picture with a panel for each section."""
    import matplotlib as mpl  # noqa: PLC0415 - only where the picture is drawn

    mpl.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415 - as above

    heights = [len(rates) + 2 for rates in found.values()]
    figure, panels = pyplot.subplots(
        len(found), figsize=(12, 0.28 * sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for panel, (section, rates) in zip(panels[:, 0], found.items(), strict=True):
        drawn = panel.barh(list(rates), list(rates.values()), color="#3b6ea5")
        panel.bar_label(drawn, fmt="{:,.0f}", padding=3, fontsize=8)
        panel.set_title(f"{section}, per second", loc="left", fontsize=10)
        panel.tick_params(labelsize=8)
        panel.invert_yaxis()
        panel.margins(x=0.12)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(bars(json.loads(Path(sys.argv[1]).read_text())["rows"]), Path(sys.argv[2]))
