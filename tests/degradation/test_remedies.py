"""Each remedy that is printed is carried out as it stands, and the complaint is gone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

import pytest

from dotmac.tasks.errors import EnvironmentFault
from dotmac.tasks.models import Finding, Verdict
from dotmac.tasks.storage.redis import RedisStorage
from dotmac.tasks.storage.redis.gateway import open_client
from dotmac.tasks.storage.redis.options import RedisOptions
from support.servers import Server

PREFIX = "house"
ALL_RIGHTS = ("on", ">secret", "~*", "&*", "+@all")


def carry_out(server: Server, remedy: str, user: str = "app") -> None:
    """Run every redis-cli command in a remedy, with the placeholders filled in."""
    commands = re.findall(r"redis-cli ((?:[^\s()&]+|'[^']*')(?: (?!&&)(?:'[^']*'|[^\s()&]+))*)", remedy)
    assert commands, remedy
    for command in commands:
        words = shlex.split(command)
        while words and words[0] in ("-h", "-p", "-s"):
            del words[:2]
        server.cli(
            *(word.replace("USER", user).replace("PREFIX", PREFIX) if word != "SETUSER" else word for word in words)
        )


async def refusal(storage: RedisStorage) -> str | None:
    """What opening the storage and writing through it is refused with."""
    try:
        async with storage.opened(), storage.watch("news"):
            await storage.register_worker("w", 5.0, {})
            await storage.renew_worker("w", 5.0)
            await storage.due_sagas(1)
            await storage.count_sagas()
    except EnvironmentFault as error:
        return str(error)
    return None


RIGHTS: dict[str, Sequence[str]] = {
    "no keys": ("resetkeys",),
    "keys of another": ("resetkeys", "~other:*"),
    "keys without the brace": ("resetkeys", f"~{PREFIX}*"),
    "no channels": ("resetchannels",),
    "no commands": ("-@all", "+@connection"),
    "no info": ("-info",),
    "no scripts": ("-@scripting",),
    "no messages": ("-publish", "-subscribe", "-unsubscribe"),
    "only writes": ("-@read",),
}


@pytest.mark.parametrize("rights", RIGHTS.values(), ids=RIGHTS)
async def test_what_an_error_says_to_grant_is_enough(server: Server, rights: Sequence[str]) -> None:
    server.cli("ACL", "SETUSER", "app", *ALL_RIGHTS, *rights)
    storage = RedisStorage(server.url, PREFIX, username="app", password="secret")  # noqa: S106 - of this test
    told = []
    while (error := await refusal(storage)) is not None:  # one after the other: the server names only the first
        assert error not in told, error
        told.append(error)
        carry_out(server, error)
    assert told


@pytest.mark.parametrize("rights", RIGHTS.values(), ids=RIGHTS)
async def test_what_the_doctor_says_to_grant_is_enough(server: Server, rights: Sequence[str]) -> None:
    server.cli("ACL", "SETUSER", "app", *ALL_RIGHTS, *rights)
    storage = RedisStorage(server.url, PREFIX, username="app", password="secret")  # noqa: S106 - of this test
    told: list[str | None] = []
    while grants := [one.remedy for one in await storage.examine() if "ACL" in (one.remedy or "")]:
        assert grants[0] not in told, grants[0]
        told.append(grants[0])
        carry_out(server, str(grants[0]))
    assert told


SETTINGS = {
    "eviction": ("maxmemory-policy", "allkeys-lru"),
    "persistence": ("appendonly", "no"),
    "appendfsync": ("appendfsync", "no"),
    "memory": ("maxmemory", "0"),
    "nearly full": ("maxmemory", "3mb"),
}


@pytest.mark.parametrize(("name", "value"), SETTINGS.values(), ids=SETTINGS)
async def test_what_the_doctor_says_to_set_is_enough(server: Server, name: str, value: str) -> None:
    server.cli("CONFIG", "SET", name, value)
    storage = RedisStorage(server.url, PREFIX)
    for finding in await complaints(storage):
        if finding.check != "replication":  # needs a second server
            carry_out(server, str(finding.remedy))
            assert finding.check not in [each.check for each in await complaints(storage)]


async def complaints(storage: RedisStorage) -> list[Finding]:
    return [finding for finding in await storage.examine() if finding.verdict is not Verdict.OK]


@pytest.mark.parametrize(
    ("name", "value", "options"),
    [
        ("maxmemory-policy", "allkeys-lru", {}),
        ("appendonly", "no", {"durability": "fsync"}),
    ],
)
async def test_what_a_start_check_says_to_set_is_enough(
    server: Server, name: str, value: str, options: dict[str, Any]
) -> None:
    server.cli("CONFIG", "SET", name, value)
    storage = RedisStorage(server.url, PREFIX, **options)
    told = await refusal(storage)
    setting = re.search(r"CONFIG SET (\S+) (\w+)", str(told))
    assert setting is not None, told
    server.cli("CONFIG", "SET", *setting.groups())
    assert await refusal(storage) is None


async def test_what_a_refused_greeting_says_to_grant_is_enough(server: Server) -> None:
    server.cli("ACL", "SETUSER", "app", *ALL_RIGHTS, "-client")
    storage = RedisStorage(server.url, PREFIX, username="app", password="secret")  # noqa: S106 - of this test
    told = await refusal(storage)
    if told is not None:  # redis-py names the connection, where it may
        carry_out(server, told)
    assert await refusal(storage) is None


async def test_a_refused_password_is_mended_by_the_right_one(server: Server) -> None:
    server.cli("ACL", "SETUSER", "app", *ALL_RIGHTS)
    wrong = await refusal(RedisStorage(server.url, PREFIX, username="app", password="wrong"))  # noqa: S106 - of this test
    assert "correct user and password in redis_url" in str(wrong)
    right = server.url.replace("redis://", "redis://app:secret@")
    async with open_client(RedisOptions.from_url(right)) as client:
        assert await client.execute("PING") == b"PONG"
