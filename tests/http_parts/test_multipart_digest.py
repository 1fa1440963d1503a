"""A form has one digest under any boundary and in any chunks, and another form has another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.http.multipart import MultipartDigest, boundary_of

Part = tuple[bytes, bytes]
parts_of_forms = st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=40)), max_size=4)
boundaries = st.sampled_from([b"x", b"----WebKitFormBoundary7MA4YWxk", b"=_outer", b"00000000000000000001"])


def form(parts: list[Part], boundary: bytes) -> bytes:
    pieces = [b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, content) for head, content in parts]
    return b"".join(pieces) + b"--" + boundary + b"--\r\n"


def digest(body: bytes, boundary: bytes, chunks: int = 1_000) -> bytes | None:
    made = MultipartDigest(boundary)
    for start in range(0, len(body), chunks):
        made.update(body[start : start + chunks])
    return made.digest()


def is_clean(parts: list[Part], boundary: bytes) -> bool:
    return all(b"--" + boundary not in b"\r\n".join(part) for part in parts)


@given(parts_of_forms, boundaries, boundaries, st.integers(1, 50))
def test_boundary_and_chunks_do_not_matter(parts: list[Part], one: bytes, other: bytes, chunks: int) -> None:
    if is_clean(parts, one) and is_clean(parts, other):
        first = digest(form(parts, one), one)
        assert first is not None
        assert first == digest(form(parts, other), other, chunks)


@given(parts_of_forms, parts_of_forms, boundaries)
def test_other_parts_have_another_digest(one: list[Part], other: list[Part], boundary: bytes) -> None:
    if is_clean(one, boundary) and is_clean(other, boundary) and form(one, boundary) != form(other, boundary):
        assert digest(form(one, boundary), boundary) != digest(form(other, boundary), boundary)


def test_parts_do_not_run_into_each_other() -> None:
    assert digest(form([(b"a", b"1"), (b"b", b"2")], b"x"), b"x") != digest(
        form([(b"a", b"1\r\nb\r\n\r\n2")], b"x"), b"x"
    )
    assert digest(form([(b"a", b"1"), (b"b", b"2")], b"x"), b"x") != digest(
        form([(b"b", b"2"), (b"a", b"1")], b"x"), b"x"
    )


@pytest.mark.parametrize("chunks", [1, 2, 7, 1_000])
def test_content_that_begins_like_a_boundary_is_content(chunks: int) -> None:
    parts = [(b"a", b"\r\n--xy\r\n--x y\r\n--x-")]
    assert digest(form(parts, b"x"), b"x", chunks) == digest(form(parts, b"other"), b"other")


@pytest.mark.parametrize("chunks", [1, 3, 1_000])
def test_what_stands_around_the_parts_does_not_count(chunks: int) -> None:
    body = form([(b"a", b"1")], b"x")
    assert digest(b"preamble\r\n" + body + b"epilogue", b"x", chunks) == digest(body, b"x")


@pytest.mark.parametrize(
    "body", [b"", b"--x", b"--x\r\na\r\n\r\n1", b"--x\r\na\r\n\r\n1\r\n--x\r\n", b"--x\r\n\r\n--x-", b"a=1"]
)
def test_an_incomplete_form_has_no_digest(body: bytes) -> None:
    assert digest(body, b"x") is None
    assert digest(body, b"x", 1) is None


def test_memory_holds_no_more_than_a_chunk_and_a_boundary() -> None:
    made = MultipartDigest(b"b" * 60)
    made.update(b"--" + b"b" * 60 + b"\r\n\r\n\r\n")
    for _ in range(100):
        made.update(b"\r\n--" + b"b" * 20 + b"x" * 10_000)
        assert len(made._unread) < 100


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b"multipart/form-data; charset=utf-8;Boundary=abc; x=1", b"abc"),
        (b'multipart/form-data; boundary="a b:c"', b"a b:c"),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b'multipart/form-data; boundary=""', None),
        (b"multipart/form-data; boundary=a; boundary=b", None),
        (b"multipart/form-data; xboundary=a", None),
    ],
)
def test_the_boundary_is_that_of_the_content_type(content_type: bytes, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary
