"""A manager that runs in a process from which another one is forked off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_a_forked_process_is_told_that_the_manager_runs_elsewhere() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "portal.fork_program"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=TESTS,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
