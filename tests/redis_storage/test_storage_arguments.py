"""What is no storage, or no option of one, is refused where it is given, with what to give instead."""

from __future__ import annotations

from typing import Any

import pytest

from dotmac.tasks import BackgroundOperationsManager, InvalidInput, MemoryStorage
from dotmac.tasks.storage.redis import RedisStorage

URL = "redis://localhost:6379/0"
NO_STORAGES: list[tuple[Any, str]] = [
    ("redis://:secret@localhost", r"RedisStorage\(url\)"),
    (b"redis://:secret@localhost", r"RedisStorage\(url\)"),
    ("", r"RedisStorage\(url\)"),
    (RedisStorage, r"pass an instance: RedisStorage\(\)"),
    (MemoryStorage, r"pass an instance: MemoryStorage\(\)"),
    ({}, "a dict has no opened"),
    (object(), "a object has no opened"),
]


@pytest.mark.parametrize(("given", "words"), NO_STORAGES)
def test_what_is_no_storage_is_refused_with_what_to_pass(given: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        BackgroundOperationsManager(storage=given)
    assert refused.value.field == "storage"
    assert "secret" not in str(refused.value)


def test_the_url_may_be_given_by_position() -> None:
    RedisStorage(URL)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"redis_url": 5}, "redis_url", "is a text"),
    ({"redis_url": MemoryStorage}, "redis_url", "is a text"),
    ({"prefix": 5}, "prefix", "printable text"),
    ({"prefix": None}, "prefix", "printable text"),
    ({"sockettimeout": 3}, "sockettimeout", "did you mean socket_timeout"),
    ({"durabillity": "fsync"}, "durabillity", "did you mean durability"),
    ({"url": URL}, "url", "is not a setting"),
    ({"socket_timeout": "5"}, "socket_timeout", "number of seconds"),
    ({"username": 5, "password": "x"}, "username", "is a text, not a int"),
    ({"password": 12345}, "password", "is a text, not a int"),
    ({"client_name": 5}, "client_name", "is a text, not a int"),
    ({"tls": "yes"}, "tls", "True or False"),
    ({"cluster": "no"}, "cluster", "True or False"),
    ({"retry_on_timeout": "no"}, "retry_on_timeout", "True or False"),
    ({"tls_options": "x"}, "tls_options", "is a mapping"),
    ({"addresses": "localhost"}, "addresses", "redis_url"),
    ({"barrier": 5}, "barrier", "durability"),
]


@pytest.mark.parametrize(("options", "field", "words"), WRONG)
@pytest.mark.parametrize("url", [URL, "embedded://./folder"])
def test_a_wrong_option_is_refused_by_its_name(url: str, options: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refused:
        RedisStorage(**{"redis_url": url, **options})
    assert refused.value.field == field
    assert "12345" not in str(refused.value)
