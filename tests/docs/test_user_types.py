"""The package says that it is typed: the type checkers that users have agree, not mypy alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_users_program_is_well_typed_in_the_eyes_of_pyright(tmp_path: Path) -> None:
    program = Path(__file__).with_name("typed_user.py")
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps({"typeCheckingMode": "strict", "include": [str(program)]}))
    ended = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--project", str(project), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
