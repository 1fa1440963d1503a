"""`dotmac` belongs to nobody: other distributions add their own packages beside `dotmac.tasks`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dotmac.tasks


def test_dotmac_has_no_module_of_its_own() -> None:
    source = Path(dotmac.tasks.__file__ or "").parent.parent
    assert not (source / "__init__.py").exists()


@pytest.mark.parametrize("order", ["dotmac.other, dotmac.tasks", "dotmac.tasks, dotmac.other"])
def test_another_distribution_can_add_a_package(tmp_path: Path, order: str) -> None:
    """Fault 20: a regular `dotmac/__init__.py` hid every other `dotmac.*`."""
    other = tmp_path / "dotmac" / "other"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("NAME = 'other'\n")
    code = f"import {order}; print(dotmac.other.NAME, dotmac.tasks.__name__)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "other dotmac.tasks\n", "")
