"""Checks every line of the shell blocks: what it names must exist, and what is cheap is run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.routing import Match, Mount, Route

from docs.documents import ROOT, SHELL, all_blocks
from dotmac.tasks import BackgroundOperationsManager, MemoryStorage
from dotmac.tasks.service.app import create_app

_PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def commands() -> list[Any]:
    return [
        pytest.param(words, id=f"{block.where}: {' '.join(words)}")
        for block in all_blocks()
        if block.language in SHELL
        for line in block.code.splitlines()
        if (words := shlex.split(line, comments=True))
    ]


@pytest.mark.parametrize("words", commands())
def test_a_command_names_only_what_exists(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "pip install 'dotmac-tasks[nothing]'",
        "pip install other",
        "pytest -m nothing",
        "pytest --nothing",
        "pytest --cov=nothing",
        "python examples/nothing.py",
        "dotmac-tasks nothing",
        "curl http://127.0.0.1:8080/v1/nothing",
        "rm -rf /",
    ],
)
def test_a_command_that_names_anything_else_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        check(shlex.split(line))


def check(words: list[str]) -> None:
    command, *arguments = words
    assert command in _CHECKS, f"no check knows the command {command!r}"
    assert arguments or command == "pytest"
    _CHECKS[command](arguments)


def _make(targets: list[str]) -> None:
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(targets) <= set(known)


def _pip(arguments: list[str]) -> None:
    assert arguments[0] == "install"
    for requirement in arguments[1:]:
        found = re.fullmatch(r"([\w-]+)(?:\[([\w,]+)\])?", requirement)
        assert found is not None
        assert found[1] == _PROJECT["project"]["name"]
        assert set(filter(None, (found[2] or "").split(","))) <= _PROJECT["project"]["optional-dependencies"].keys()


def _pytest(arguments: list[str]) -> None:
    markers = {line.partition(":")[0] for line in _PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    remaining = iter(arguments)
    for argument in remaining:
        name, _, value = argument.partition("=")
        if name == "-m":
            assert set(re.findall(r"\w+", next(remaining))) - {"not", "and", "or"} <= markers
        elif name == "--cov":
            assert value == "dotmac.tasks"
            assert importlib.util.find_spec(value) is not None
        else:
            assert (name, value) == ("--cov-report", "html")


def _python(arguments: list[str]) -> None:
    # What an example prints is checked by the examples' own test.
    (path,) = arguments
    assert Path(path).parent.name == "examples"
    assert (ROOT / path).is_file()


def _dotmac_tasks(arguments: list[str]) -> None:
    # A command's own run is long; that it exists is seen from its help.
    ended = subprocess.run(
        [sys.executable, "-c", "from dotmac.tasks.cli import main; main()", *arguments, "--help"],
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0


def _curl(arguments: list[str]) -> None:
    # What the service answers is checked by its own tests; here, that it has such an address.
    (address,) = [word for word in arguments if word.startswith("http")]
    path = urlsplit(address).path
    service = create_app(BackgroundOperationsManager(storage=MemoryStorage()))
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": []}
    found = [route for route in service.routes if route.matches(scope)[0] is not Match.NONE]
    inner = [each for route in found if isinstance(route, Mount) for each in route.routes]
    assert any(isinstance(route, Route) and f"/v1{route.path}" == path for route in inner) or any(
        isinstance(route, Route) for route in found
    )


_CHECKS: dict[str, Callable[[list[str]], None]] = {
    "curl": _curl,
    "make": _make,
    "pip": _pip,
    "pytest": _pytest,
    "python": _python,
    "dotmac-tasks": _dotmac_tasks,
}
