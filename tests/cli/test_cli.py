"""The entry point: version, help, and what it says without its extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dotmac.tasks import __version__

_RUN = "from dotmac.tasks.cli import main; main()"


def dotmac_tasks(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + _RUN, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_it_tells_its_version() -> None:
    ended = dotmac_tasks("--version")
    assert (ended.returncode, ended.stdout) == (0, f"dotmac-tasks {__version__}\n")


def test_help_lists_the_commands() -> None:
    ended = dotmac_tasks("--help")
    assert ended.returncode == 0
    assert "demo" in ended.stdout


def test_an_unknown_command_is_an_error() -> None:
    ended = dotmac_tasks("nothing")
    assert ended.returncode == 2
    assert "nothing" in ended.stderr


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    ended = dotmac_tasks("demo", before=f"import sys; sys.modules[{missing!r}] = None; ")
    assert ended.returncode == 1
    assert ended.stderr == f"dotmac-tasks: {missing} is not installed; run: pip install 'dotmac-tasks[service]'\n"


def test_another_missing_module_is_not_taken_for_the_extra() -> None:
    ended = dotmac_tasks("demo", before="import sys; sys.modules['fcntl'] = None; ")
    assert ended.returncode == 1
    assert "ModuleNotFoundError" in ended.stderr
