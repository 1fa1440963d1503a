"""Every text of the package that names a command, an option or a setting as a remedy has a test that carries it out.

The texts are collected from the source: a new one that is missing in `REGISTER` fails here.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from dotmac.tasks.commands import app

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "dotmac" / "tasks"
NAMES_A_REMEDY = re.compile(
    r"CONFIG (SET|RESETSTAT|REWRITE)|ACL (SETUSER|LIST)|REPLICAOF|SCRIPT KILL|^BG(SAVE|REWRITEAOF)$"
    r"|redis-cli (?!\{|-[hs] \{)|pip install|To (mend|keep) it|DOTMAC_TASKS_[A-Z_]+|[ (]--[a-z]"
)
OPTIONS, SETTINGS, EXTRAS = "options", "settings", "extras"
"""Remedies that tests below look up in the command line, in the settings and in pyproject.toml."""

REGISTER = {
    # storage/redis/checks.py
    "CONFIG SET maxmemory-policy noeviction": "test_what_a_start_check_says_to_set_is_enough",
    "CONFIG SET appendonly yes": "test_what_a_start_check_says_to_set_is_enough",
    "CONFIG SET appendfsync always": "test_a_server_without_waitaof_keeps_writes_as_the_refusal_says",
    "redis-cli -h REPLICA REPLICAOF {}": "test_what_durability_by_replicas_says_to_attach_is_enough",
    "To mend it: {}": "test_a_missing_replica_is_attached_as_the_watch_says",
    # storage/redis/judging.py
    "CONFIG SET appendfsync everysec": "test_what_the_doctor_says_to_set_is_enough",
    "CONFIG SET maxmemory {}mb": "test_what_the_doctor_says_to_set_is_enough",
    "CONFIG REWRITE": "test_a_server_that_the_storage_would_refuse_is_examined_and_mended_by_the_remedy",
    "CONFIG RESETSTAT": "test_evictions_are_forgotten_as_the_doctor_says",
    "REPLICAOF NO ONE": "test_a_replica_is_promoted_as_the_refusal_of_a_start_says",
    "BGSAVE": "test_a_failed_save_is_repeated_as_the_doctor_says",
    "BGREWRITEAOF": "test_a_failed_save_is_repeated_as_the_doctor_says",
    "DOTMAC_TASKS_SAGA_RETENTION": SETTINGS,
    # storage/redis/examination.py, replies.py, wire.py
    "ACL LIST": "test_a_refused_password_is_mended_by_the_right_one",
    "redis-cli ACL SETUSER USER resetchannels": "test_what_the_doctor_says_to_grant_is_enough",
    "redis-cli ACL SETUSER USER '+script|load' +evalsha": "test_what_the_doctor_says_to_grant_is_enough",
    "redis-cli ACL SETUSER USER \\S+": "test_what_the_doctor_says_to_grant_is_enough",
    "redis-cli ACL SETUSER USER {}": "test_what_an_error_says_to_grant_is_enough",
    "redis-cli ACL SETUSER USER +@connection": "test_what_a_refused_greeting_says_to_grant_is_enough",
    "redis-cli CONFIG SET maxmemory BYTES": "test_the_command_in_a_refusal_ends_it",
    "redis-cli CONFIG SET min-replicas-to-write 0": "test_either_way_out_of_missing_replicas_ends_the_refusal",
    "then: redis-cli BGSAVE": "test_the_command_in_a_refusal_ends_it",
    "redis-cli SCRIPT KILL": "test_the_command_in_a_refusal_ends_it",
    # the command line, the service, and the embedded server
    "pip install 'dotmac-tasks[": EXTRAS,
    "DOTMAC_TASKS_SYNC_HANDLER_THREADS": SETTINGS,
    " --redis": OPTIONS,
    " --keyfile": OPTIONS,
    " --certfile": OPTIONS,
    " --token-file": OPTIONS,
    " --host": OPTIONS,
    " --cursor": OPTIONS,
    " --failed": OPTIONS,
    " --status": OPTIONS,
    " --tenant": OPTIONS,
}


def texts(tree: ast.AST) -> Iterator[str]:
    """The strings of a module that are no docstrings, with {} for each value that is filled in."""
    passed: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            passed.update(node.values)
        for statement in getattr(node, "body", ()) if isinstance(getattr(node, "body", None), list) else ():
            if isinstance(statement, ast.Expr):
                passed.add(statement.value)
    for node in ast.walk(tree):
        if node in passed:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]


@cache
def remedies() -> dict[str, str]:
    """Each text that names a remedy, with the file in which it is."""
    return {
        text: str(path.relative_to(SOURCE))
        for path in sorted(SOURCE.rglob("*.py"))
        for text in texts(ast.parse(path.read_text()))
        if NAMES_A_REMEDY.search(text)
    }


def test_every_remedy_in_the_source_is_registered() -> None:
    unknown = {text: path for text, path in remedies().items() if not any(part in text for part in REGISTER)}
    assert unknown == {}


@pytest.mark.parametrize("part", REGISTER)
def test_a_registered_remedy_is_in_the_source_and_its_test_exists(part: str) -> None:
    assert any(part in text for text in remedies())
    if REGISTER[part] not in (OPTIONS, SETTINGS, EXTRAS):
        tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
        assert f"async def {REGISTER[part]}(" in tests


def test_options_that_a_remedy_names_exist() -> None:
    named = {option for text in remedies() for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text)}
    assert named - set(options_of(get_command(app))) == set()


def options_of(command: Any) -> Iterator[str]:
    """The options of a command and of those below it."""
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for below in getattr(command, "commands", {}).values():
        yield from options_of(below)


def test_settings_that_a_remedy_names_exist() -> None:
    named = {name for text in remedies() for name in re.findall(r"DOTMAC_TASKS_[A-Z_]+", text)}
    readme = (ROOT / "README.md").read_text()
    assert {name for name in named if name not in readme} == set()


def test_extras_that_a_remedy_names_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {name for text in remedies() for name in re.findall(r"dotmac-tasks\[(\w+)\]", text)}
    assert named <= extras.keys()
    handed_over = re.compile(r'needs\("[^"]+", "(\w+)"\)|needs\("[^"]+", extra="(\w+)"\)')
    source = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    passed = {one or other for one, other in handed_over.findall(source)}
    assert passed
    assert passed <= extras.keys()
