"""The origin of a request: one spelling for one host, and no crash on a malformed one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.http.authority import origin_of


def origin(*hosts: bytes, **scope: Any) -> str:
    return origin_of({"headers": [(b"host", host) for host in hosts], **scope})


@pytest.mark.parametrize(
    ("host", "scheme", "expected"),
    [
        (b"shop.example", "http", "http://shop.example"),
        (b"Shop.EXAMPLE.", "http", "http://shop.example"),
        (b"shop.example:80", "http", "http://shop.example"),
        (b"shop.example:", "http", "http://shop.example"),
        (b"shop.example:443", "https", "https://shop.example"),
        (b"shop.example:443", "http", "http://shop.example:443"),
        (b"shop.example:08443", "HTTPS", "https://shop.example:8443"),
        (b"shop.example:0", "http", "http://shop.example:0"),
        (b" shop.example ", "http", "http://shop.example"),
        (b"b%C3%BCro.example", "http", "http://b%c3%bcro.example"),
        (b"shop_1", "http", "http://shop_1"),
    ],
)
def test_one_spelling(host: bytes, scheme: str, expected: str) -> None:
    assert origin(host, scheme=scheme) == expected


@pytest.mark.parametrize("host", [b"127.0.0.1:8001", b"10.0.0.7", b"[::1]:8000", b"[::ffff:1.2.3.4]", b"LOCALHOST:1"])
def test_an_address_names_no_application(host: bytes) -> None:
    assert origin(host, scheme="https") == "https://"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"127.0.0.1:8001", "http://127.0.0.1:8001 shop"),
        (b"[0:0::1]:80", "http://[::1] shop"),
        (b"LOCALHOST", "http://localhost shop"),
        (b"shop.example", "http://shop.example shop"),
    ],
)
def test_an_address_names_the_route_that_was_chosen_by_it(host: bytes, expected: str) -> None:
    assert origin_of({"headers": [(b"host", host)]}, "shop") == expected


def test_without_host_and_scheme() -> None:
    assert origin() == "http://"
    assert origin(scheme=None) == "http://"


@pytest.mark.parametrize(
    "host",
    [b"", b" ", b".", b"[::1", b"[::1]x", b"[]", b"[1:2]", b"a b", b"a/b", b"a@b", b"\xff", b"a\x00", b"a\n",
     b"a:b", b"a:1:2", b":80", b"a:65536", b"a:" + b"9" * 5000, b"a%zz", b"a%", b"http://a"],
)  # fmt: skip
def test_a_malformed_host_is_refused(host: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^Host: "):
        origin(host)


def test_two_hosts_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^Host: must be sent once, not 2 times"):
        origin(b"a", b"a")


@given(st.binary(max_size=20))
def test_any_bytes_have_an_origin_or_are_refused(host: bytes) -> None:
    with suppress(InvalidInput):
        assert origin(host).startswith("http://")
