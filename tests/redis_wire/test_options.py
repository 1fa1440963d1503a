"""What the gateway is told: URLs of every topology, and refusals that name the field and show no secret."""

from __future__ import annotations

from typing import Any

import pytest

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.storage.redis.address import Address
from dotmac.tasks.storage.redis.options import RedisOptions

SECRET = "hush-hush"  # noqa: S105 - it protects nothing


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", {"addresses": (Address("localhost", 6379),), "db": 0, "tls": False}),
        ("redis://", {"addresses": (Address("localhost", 6379),)}),
        ("redis://h:7000/3", {"addresses": (Address("h", 7000),), "db": 3}),
        ("redis://[::1]:7000", {"addresses": (Address("::1", 7000),)}),
        ("redis://u:p%40ss@h", {"username": "u", "password": "p@ss"}),
        ("redis://:word@h", {"username": None, "password": "word"}),
        ("rediss://h?ssl_check_hostname=no&ssl_ca_certs=/ca", {"tls": True}),
        ("unix:///run/r.sock?db=2", {"addresses": (Address("/run/r.sock", 0),), "db": 2}),
        ("unix://u:w@/run/r.sock", {"username": "u", "password": "w"}),
        (
            "redis+sentinel://a:1,b/main/2",
            {
                "addresses": (Address("a", 1), Address("b", 26379)),
                "service": "main",
                "db": 2,
                "topology": "sentinel",
            },
        ),
        ("rediss+cluster://a,b:7", {"addresses": (Address("a", 6379), Address("b", 7)), "tls": True}),
        ("redis://h?socket_timeout=2.5&retry_on_timeout=false", {"socket_timeout": 2.5, "retry_on_timeout": False}),
    ],
)
def test_url_states_the_fields(url: str, expected: dict[str, Any]) -> None:
    options = RedisOptions.from_url(url)
    assert {name: getattr(options, name) for name in expected} == expected


def test_tls_options_come_from_the_url() -> None:
    options = RedisOptions.from_url("rediss://h?ssl_check_hostname=no&ssl_ca_certs=/ca")
    assert options.tls_options == {"ssl_check_hostname": False, "ssl_ca_certs": "/ca"}


def test_arguments_win_over_the_url() -> None:
    options = RedisOptions.from_url("redis://h?socket_timeout=2", socket_timeout=7.0, cluster=True)
    assert (options.socket_timeout, options.topology) == (7.0, "cluster")


@pytest.mark.parametrize(
    ("url", "settings", "field"),
    [
        (f"http://u:{SECRET}@h", {}, "redis_url"),
        (f"redis://u:{SECRET}/x@h:1/0", {}, "redis_url"),
        (f"redis://u:x@h:{SECRET}/0", {}, "redis_url"),
        (f"redis://u:x@h:1/{SECRET}", {}, "redis_url"),
        (f"redis://h?{SECRET}=1", {}, "redis_url"),
        (f"redis://h?db={SECRET}", {}, "redis_url"),
        (f"redis://[::1/{SECRET}", {}, "redis_url"),
        ("redis://h#x", {}, "redis_url"),
        ("unix://", {}, "redis_url"),
        (5, {}, "redis_url"),
        ("redis+sentinel://a,b", {}, "service"),
        ("redis+cluster://a/1", {}, "db"),
        ("redis://a,b", {}, "addresses"),
        ("redis://user@h", {}, "password"),
        ("redis://h", {"socket_timeout": 0}, "socket_timeout"),
        ("redis://h", {"socket_timeout": True}, "socket_timeout"),
        ("redis://h", {"max_connections": 0}, "max_connections"),
        ("redis://h", {"window": "many"}, "window"),
        ("redis://h", {"loop_host": "moon"}, "loop_host"),
        ("redis://h", {"colour": "red"}, "colour"),
    ],
)
def test_bad_input_is_refused_by_field_and_shows_no_secret(url: Any, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        RedisOptions.from_url(url, **settings)
    assert refused.value.field == field
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_repr_shows_no_secret() -> None:
    options = RedisOptions.from_url(f"redis://u:{SECRET}@h", sentinel_password=SECRET)
    assert SECRET not in repr(options)
