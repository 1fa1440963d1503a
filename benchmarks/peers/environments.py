"""Where the peers are installed: an environment of its own for each, in a folder that git ignores.

They are made once, from PyPI and npm, and used again as long as they hold what is asked for. What cannot be installed
raises `NotInstalled` with the reason, so that a row can say so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1] / ".peers"
INSTALL_SECONDS = 300.0
RESTATE_SERVER = "@restatedev/restate-server@1.7.12"


class NotInstalled(Exception):
    """It could not be installed; the message says why."""


def python_with(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of an environment that has these packages; without any, the one that runs this."""
    if not requirements:
        return Path(sys.executable)
    folder = ROOT / name
    python = folder / "bin" / "python"
    if not _holds(folder, requirements):
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements])
        _note(folder, requirements)
    return python


def restate_server() -> Path:
    """The binary of Restate's server, as its npm package has it."""
    folder = ROOT / "restate-server"
    if not _holds(folder, [RESTATE_SERVER]):
        npm = shutil.which("npm")
        if npm is None:
            raise NotInstalled("there is no npm")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _run([npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", RESTATE_SERVER])
        _note(folder, [RESTATE_SERVER])
    for binary in folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"):
        return binary
    raise NotInstalled("npm has no server for this machine")


def _holds(folder: Path, wanted: Sequence[str]) -> bool:
    note = folder / "holds.txt"
    return note.exists() and note.read_text().split() == list(wanted)


def _note(folder: Path, held: Sequence[str]) -> None:
    (folder / "holds.txt").write_text("\n".join(held))


def _run(command: list[str]) -> None:
    print(f"installing: {' '.join(command[1:])}", file=sys.stderr)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"not installed within {INSTALL_SECONDS:.0f} s") from None
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines() or ["no reason given"]
        raise NotInstalled(lines[-1])
