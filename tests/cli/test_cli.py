"""The entry point: version, help, and what it says without its extra."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("words", [["--version"], ["locks", "--redis", ""]])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_changes_no_exit_code(closed: str, words: list[str]) -> None:
    command = shlex.join([sys.executable, "-c", _RUN, *words])
    ended = subprocess.run(["sh", "-c", f"{command} {closed}"], capture_output=True, text=True, check=False)
    assert ended.returncode == dotmac_tasks(*words).returncode
    assert "Traceback" not in ended.stderr


def test_an_empty_standard_input_is_told_where_it_is_closed() -> None:
    command = shlex.join([sys.executable, "-c", _RUN, "sagas", "start", "-", "--redis", "redis://127.0.0.1:1/0"])
    ended = subprocess.run(["sh", "-c", f"{command} <&-"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_an_output_that_takes_no_more_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", _RUN, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == "dotmac-tasks: cannot write what there is to say: No space left on device\n"


def test_ctrl_c_while_it_loads_leaves_no_traceback() -> None:
    interrupt = "import builtins, os, signal; real = builtins.__import__\n"
    interrupt += "def late(name, *more, **others):\n"
    interrupt += "    if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
    interrupt += "    return real(name, *more, **others)\n"
    interrupt += "builtins.__import__ = late\n"
    ended = dotmac_tasks("--version", before=interrupt)
    assert (ended.returncode, ended.stderr) == (130, "")
