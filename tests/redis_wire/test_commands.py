"""Commands are packed, or refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.storage.redis.commands import pack_arguments, pack_checked


def test_bytes_text_and_numbers_are_packed() -> None:
    assert pack_checked(("SET", b"k", 1.5)) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\n1.5\r\n"


@pytest.mark.parametrize(
    ("command", "field"),
    [
        ((), "command"),
        (("SET", "k", None), "command[2]"),
        (("SET", "k", True), "command[2]"),
        (("SET", "k", ["v"]), "command[2]"),
        ((7, "k"), "command"),
        ((None,), "command[0]"),
    ],
)
def test_what_redis_cannot_store_is_refused_by_position(command: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        pack_checked(command)
    assert refused.value.field == field


def test_arguments_of_scripts_are_checked_too() -> None:
    with pytest.raises(InvalidInput):
        pack_arguments((b"EVALSHA", b"sha", 0, None))  # type: ignore[arg-type]  # what the test is about


@pytest.mark.parametrize("command", [("subscribe", "c"), ("MULTI",), ("blpop", "k", 0), ("CLIENT", "REPLY", "OFF")])
def test_what_would_disturb_other_callers_is_refused(command: Any) -> None:
    with pytest.raises(InvalidInput, match="all callers share"):
        pack_checked(command)


def test_client_commands_that_disturb_nobody_pass() -> None:
    assert pack_checked(("CLIENT", "LIST"))
    assert pack_checked(("CLIENT",))
