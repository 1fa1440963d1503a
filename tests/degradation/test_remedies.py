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


def carry_out(server: Server, remedy: str, **placeholders: object) -> None:
    """Run every redis-cli command in a remedy, with the placeholders filled in."""
    filled = {"USER": "app", "PREFIX": PREFIX, **placeholders}
    for words in commands_of(remedy):
        for name, value in filled.items():
            words = [re.sub(rf"\b{name}\b", str(value), word) for word in words]  # noqa: PLW2901 - one after another
        server.cli(*words)


def commands_of(remedy: str) -> list[list[str]]:
    """What a remedy has redis-cli send, without the address."""
    found = re.findall(r"redis-cli ((?:[^\s()&]+|'[^']*')(?: (?!&&)(?:'[^']*'|[^\s()&]+))*)", remedy)
    assert found, remedy
    commands = [shlex.split(command) for command in found]
    for words in commands:
        while words and words[0] in ("-h", "-p", "-s"):
            del words[:2]
    return commands


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
    carry_out(server, str(told))
    assert await refusal(storage) is None


@pytest.mark.parametrize("right", ["-client", "-select", "-@connection"])
async def test_what_a_refused_greeting_says_to_grant_is_enough(server: Server, right: str) -> None:
    server.cli("ACL", "SETUSER", "app", *ALL_RIGHTS, right)
    url = f"{server.url.removesuffix('/0')}/3"
    storage = RedisStorage(url, PREFIX, username="app", password="secret")  # noqa: S106 - of this test
    told = await refusal(storage)
    assert "does not let this user connect" in str(told)
    carry_out(server, str(told))
    assert await refusal(storage) is None


async def test_a_refused_password_is_mended_by_the_right_one(server: Server) -> None:
    server.cli("ACL", "SETUSER", "app", *ALL_RIGHTS)
    wrong = await refusal(RedisStorage(server.url, PREFIX, username="app", password="wrong"))  # noqa: S106 - of this test
    assert "correct user and password in redis_url" in str(wrong)
    right = server.url.replace("redis://", "redis://app:secret@")
    async with open_client(RedisOptions.from_url(right)) as client:
        assert await client.execute("PING") == b"PONG"


async def test_the_doctor_says_how_to_look_whether_a_server_can_be_reached(server: Server) -> None:
    storage = RedisStorage(server.url, PREFIX, socket_timeout=0.5)
    server.kill()
    (finding,) = await complaints(storage)
    server.start()
    (command,) = commands_of(str(finding.remedy))
    assert server.cli(*command) == "PONG"
    assert not [each for each in await complaints(storage) if each.check == "connection"]
