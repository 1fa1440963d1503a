"""The package says that it is typed: the type checkers that users have agree, not mypy alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PYRIGHT = shutil.which("pyright")


@pytest.mark.skipif(PYRIGHT is None, reason="no pyright")
def test_a_users_program_is_well_typed_in_the_eyes_of_pyright() -> None:
    program = Path(__file__).with_name("typed_user.py")
    ended = subprocess.run(
        [str(PYRIGHT), "--pythonpath", sys.executable, str(program)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout
