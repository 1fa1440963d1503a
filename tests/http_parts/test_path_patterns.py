"""Patterns of paths, and the paths that they are meant for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.http import path_patterns
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
        ("/**", ""),
        ("/**/**", "/a"),
        ("/a/**/b/**/c", "/a/x/b/b/y/c"),
        ("/files/{name}-{version}.{ext}", "/files/a-b-1.2.tgz"),
    ],
)
def test_meant(pattern: str, path: str) -> None:
    compiled = compile_pattern(pattern)
    assert compiled.method is None
    assert compiled.matches(path)


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
        ("/a/**/a", "/a"),
        ("/a/**/b/**/c", "/a/c/b"),
        ("/a", "a"),
        ("/a", "http://host/a"),
        ("/**", "a"),
    ],
)
def test_not_meant(pattern: str, path: str) -> None:
    assert not compile_pattern(pattern).matches(path)


def test_a_method_in_front() -> None:
    compiled = compile_pattern("put  /files/*")
    assert compiled.method == "PUT"
    assert compiled.matches("/files/a")


@pytest.mark.parametrize("pattern", ["", "payments", "PUT", "PUT /a /b", "/a b", "/a**", "/a/x**/b", None, 5])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        compile_pattern(pattern)
    assert refused.value.field == "pattern"


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [("/", "/"), ("/a/b", "/a/b"), ("/a/*/b", "/a"), ("/a/**", "/a"), ("/a/b{name}", "/a"), ("/**", ""), ("/*", "")],
)
def test_the_part_before_the_first_wildcard(pattern: str, literal: str) -> None:
    assert compile_pattern(pattern).literal_path == literal


# --- against a slow reference -------------------------------------------------------------------------------------

texts = st.text("ab-", max_size=4)
segments = (
    st.lists(st.sampled_from(["*", "a", "b", "-"]), max_size=4).map("".join).filter(lambda text: "**" not in text)
)
patterns = st.lists(segments | st.just("**"), min_size=1, max_size=5)
paths = st.lists(texts, min_size=1, max_size=6)


def reference(pattern: list[str], path: list[str]) -> bool:
    """Try every split."""

    @cache
    def text_fits(wanted: str, text: str) -> bool:
        if not wanted:
            return not text
        if wanted[0] == "*":
            return any(text_fits(wanted[1:], text[start:]) for start in range(len(text) + 1))
        return bool(text) and text[0] == wanted[0] and text_fits(wanted[1:], text[1:])

    @cache
    def fits(at: int, place: int) -> bool:
        if at == len(pattern):
            return place == len(path)
        if pattern[at] == "**":
            return any(fits(at + 1, later) for later in range(place, len(path) + 1))
        return place < len(path) and text_fits(pattern[at], path[place]) and fits(at + 1, place + 1)

    return fits(0, 0)


@given(patterns, paths)
def test_a_pattern_matches_what_trying_every_split_finds(pattern: list[str], path: list[str]) -> None:
    compiled = compile_pattern("".join(f"/{segment}" for segment in pattern))
    assert compiled.matches("".join(f"/{segment}" for segment in path)) == reference(pattern, path)


# --- steps ----------------------------------------------------------------------------------------------------------


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """Count the lines of the module that run."""
    steps = [0]

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        if frame.f_code.co_filename != path_patterns.__file__:
            return None
        steps[0] += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield steps
    finally:
        sys.settrace(before)


@pytest.mark.parametrize(
    ("pattern", "hostile"),
    [
        ("/tenants/**/orders/**/pay", lambda n: "/tenants" + "/orders" * n + "/x"),
        ("/tenants/**/orders/**/orders/**/pay", lambda n: "/tenants" + "/orders" * n + "/x"),
        ("/**/a/*/**/a/*/**/b", lambda n: "/a" * n),
        ("/**/*/*/*/b/**", lambda n: "/a" * n),
        ("/files/{name}-{version}.{ext}", lambda n: "/files/" + "-." * n + "/"),
        ("/files/{name}-{version}-{build}.{ext}z", lambda n: "/files/" + "-." * n),
        ("/**/{a}-{b}.{c}/**/{d}-{e}/z", lambda n: "/-." * n),
    ],
)
def test_steps_grow_no_faster_than_the_path(pattern: str, hostile: Any) -> None:
    compiled, steps = compile_pattern(pattern), []
    for size in (200, 400):
        with counted_steps() as counted:
            assert not compiled.matches(hostile(size))
        steps.append(counted[0])
    assert steps[1] < 2.5 * steps[0]  # quadratic would be four times
