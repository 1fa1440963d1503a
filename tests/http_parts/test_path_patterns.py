"""Patterns of paths, and the paths that they are meant for."""

from __future__ import annotations

import pytest

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.http.path_patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/", "/"),
        ("/payments", "/payments"),
        ("/payments/*", "/payments/17"),
        ("/payments/*", "/payments/"),
        ("/pay-*/x", "/pay-later/x"),
        ("/*.json", "/a.json"),
        ("/files/**", "/files"),
        ("/files/**", "/files/a"),
        ("/files/**", "/files/a/b/"),
        ("/**", "/"),
        ("/**", "/a/b"),
        ("/**/pay", "/pay"),
        ("/**/pay", "/a/b/pay"),
        ("/a/**/z", "/a/z"),
        ("/a/**/z", "/a/b/c/z"),
        ("/orders/{order_id}/pay", "/orders/17/pay"),
        ("/orders/{order_id:int}/pay", "/orders/17/pay"),
        ("/files/{rest:path}", "/files/a/b"),
        ("/a.b", "/a.b"),
        ("/a/*", "/a/\n"),
    ],
)
def test_meant(pattern: str, path: str) -> None:
    method, regex = compile_pattern(pattern)
    assert method is None
    assert regex.fullmatch(path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/payments", "/payments/"),
        ("/payments/*", "/payments/17/lines"),
        ("/payments/*", "/payments"),
        ("/files/**", "/filesystem"),
        ("/**/pay", "/a/repay"),
        ("/orders/{order_id}/pay", "/orders/1/2/pay"),
        ("/a.b", "/axb"),
        ("/a+", "/aa"),
    ],
)
def test_not_meant(pattern: str, path: str) -> None:
    assert not compile_pattern(pattern)[1].fullmatch(path)


def test_a_method_in_front() -> None:
    method, regex = compile_pattern("put  /files/*")
    assert method == "PUT"
    assert regex.fullmatch("/files/a")


@pytest.mark.parametrize("pattern", ["", "payments", "PUT", "PUT /a /b", "/a b", "/a**", "/a/x**/b", None, 5])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        compile_pattern(pattern)
    assert refused.value.field == "pattern"
