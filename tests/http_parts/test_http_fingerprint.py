"""Which requests under one key are the same request."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.http.fingerprint import Fingerprint, RequestHead
from dotmac.tasks.http.netstrings import netstrings

JSON = b"application/json"


def fingerprint(body: bytes, content_type: bytes = b"", *, chunks: int = 1_000, **options: Any) -> str:
    made = Fingerprint(RequestHead("POST", "/a", b"", content_type), **options)
    for start in range(0, len(body), chunks):
        made.update(body[start : start + chunks])
    return made.finish()


def of_json(body: str, content_type: bytes = JSON, **options: Any) -> str:
    return fingerprint(body.encode(), content_type, mode="json", **options)


@given(st.binary(), st.binary(), st.integers(1, 20))
def test_bytes_are_compared_however_they_are_cut(one: bytes, other: bytes, chunks: int) -> None:
    assert (fingerprint(one) == fingerprint(other, chunks=chunks)) == (one == other)


@given(*[st.tuples(st.text(), st.text(), st.binary(), st.binary(), st.binary())] * 2)
def test_every_part_of_the_request_counts(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    def made(parts: tuple[Any, ...]) -> str:
        *head, body = parts
        each = Fingerprint(RequestHead(*head))
        each.update(body)
        return each.finish()

    def meant(parts: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*parts[:3], RequestHead(*parts[:4]).media_type, parts[4])

    assert (made(one) == made(other)) == (meant(one) == meant(other))


@pytest.mark.parametrize(
    "head",
    [
        RequestHead("PUT", "/a", b"q=1", JSON),
        RequestHead("POST", "/b", b"q=1", JSON),
        RequestHead("POST", "/a", b"q=2", JSON),
        RequestHead("POST", "/a", b"q=1", b"text/plain"),
    ],
)
def test_another_head_is_another_request(head: RequestHead) -> None:
    assert Fingerprint(head).finish() != Fingerprint(RequestHead("POST", "/a", b"q=1", JSON)).finish()


def test_parameters_of_the_content_type_do_not_count() -> None:
    assert fingerprint(b"x", b"Text/Plain ; charset=utf-8") == fingerprint(b"x", b"text/plain")


def test_a_path_that_is_no_utf8_has_a_fingerprint() -> None:
    assert Fingerprint(RequestHead("POST", "/\udcff")).finish() != Fingerprint(RequestHead("POST", "/\udcfe")).finish()


@pytest.mark.parametrize("content_type", [JSON, b"application/problem+json; charset=utf-8", b"text/json"])
def test_json_is_compared_by_what_it_means(content_type: bytes) -> None:
    assert of_json('{"a":1,"b":[2]}', content_type) == of_json('{ "b": [2.0], "a": 1 }', content_type)
    assert of_json('{"a":1}', content_type) != of_json('{"a":2}', content_type)


def test_in_bytes_mode_the_spelling_of_json_counts() -> None:
    assert fingerprint(b'{"a":1}', JSON) != fingerprint(b'{"a": 1}', JSON)


def test_what_is_not_announced_as_json_is_compared_by_bytes() -> None:
    assert of_json('{"a":1}', b"text/plain") != of_json('{"a": 1}', b"text/plain")


@pytest.mark.parametrize("body", ['{"a": 1, "a": 2}', '{"a": NaN}', "{", "", "1e9999999999999999999999"])
def test_json_without_a_single_meaning_is_compared_by_bytes(body: str) -> None:
    assert of_json(body) == of_json(body)
    assert of_json(body) != of_json(body + " ")


def test_json_beyond_the_limit_is_compared_by_bytes() -> None:
    assert of_json('{"a":  1}', limit=8) != of_json('{"a":1}  ', limit=8)
    assert of_json('{"a":  1}', limit=9, chunks=2) == of_json('{"a":1}  ', limit=9, chunks=4)


def test_a_long_json_body_takes_its_time_and_says_so() -> None:
    def is_costly(body: bytes, content_type: bytes) -> bool:
        made = Fingerprint(RequestHead("POST", "/", b"", content_type), "json", limit=100_000)
        made.update(body)
        return made.is_costly

    assert is_costly(b"[" + b"1," * 20_000 + b"1]", JSON)
    assert not is_costly(b"[1]", JSON)
    assert not is_costly(bytes(20_000), b"text/plain")
    assert not is_costly(bytes(200_000), JSON)  # over the limit: its bytes are hashed already


def test_bytes_that_spell_a_canonical_form_are_not_taken_for_it() -> None:
    assert of_json("1") != of_json("1e0 nonsense")
    assert fingerprint(b"1", JSON) != of_json("1")


def test_chosen_and_ignored_members() -> None:
    assert of_json('{"a":1,"t":2}', ignored=["t"]) == of_json('{"a":1,"t":3}', ignored=["t"])
    assert of_json('{"a":1,"t":2}', chosen=["a"]) == of_json('{"a":1,"t":3}', chosen=["a"])
    assert of_json('{"a":1,"t":2}', chosen=["a"]) != of_json('{"a":2,"t":2}', chosen=["a"])


def upload(boundary: bytes, content: bytes) -> tuple[bytes, bytes]:
    head = b'Content-Disposition: form-data; name="f"; filename="a.bin"'
    body = b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (boundary, head, content, boundary)
    return body, b"multipart/form-data; boundary=" + boundary


@pytest.mark.parametrize("mode", ["bytes", "json"])
def test_a_form_under_another_boundary_is_the_same_request(mode: str) -> None:
    assert fingerprint(*upload(b"one", b"\x00\xff"), mode=mode) == fingerprint(*upload(b"two", b"\x00\xff"), mode=mode)
    assert fingerprint(*upload(b"one", b"\x00"), mode=mode) != fingerprint(*upload(b"one", b"\x01"), mode=mode)


def test_a_form_that_breaks_off_is_compared_by_bytes() -> None:
    body, content_type = upload(b"one", b"x")
    assert fingerprint(body[:-6], content_type) != fingerprint(body[:-7], content_type)
    assert fingerprint(b"--x\r\n", b"multipart/form-data") != fingerprint(b"--y\r\n", b"multipart/form-data")


@pytest.mark.parametrize("content_type", [b"application/octet-stream", b"multipart/form-data; boundary=x", JSON])
def test_memory_stays_flat_however_long_the_body_is(content_type: bytes) -> None:
    made = Fingerprint(RequestHead("POST", "/a", b"", content_type), "json", limit=100_000)
    made.update(b"--x\r\n\r\n")
    chunk = bytes(65_536)
    tracemalloc.start()
    try:
        for _ in range(256):
            made.update(chunk)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert len(made.finish()) == 64


@given(*[st.lists(st.none() | st.binary(max_size=6), max_size=5)] * 2)
def test_no_two_lists_are_joined_to_one(one: list[bytes | None], other: list[bytes | None]) -> None:
    assert (netstrings(one) == netstrings(other)) == (one == other)


# --- compressed bodies ----------------------------------------------------------------------------------------------


def compressed(body: bytes, encoding: bytes = b"gzip", *, chunks: int = 7, **options: Any) -> str:
    content_type = options.pop("content_type", b"")
    made = Fingerprint(RequestHead("POST", "/a", b"", content_type, encoding), **options)
    for start in range(0, len(body), chunks):
        made.update(body[start : start + chunks])
    made.update(b"")
    return made.finish()


def test_two_compressions_of_one_content_are_one_request() -> None:
    one, later = gzip.compress(b"order" * 50, mtime=1), gzip.compress(b"order" * 50, mtime=2)
    assert one != later
    assert compressed(one) == compressed(later, b"X-GZIP ", chunks=1_000) == fingerprint(b"order" * 50)
    assert compressed(one) == compressed(zlib.compress(b"order" * 50), b"deflate")
    assert compressed(one) != compressed(gzip.compress(b"other" * 50))


def test_the_meaning_of_a_compressed_document_counts() -> None:
    options: dict[str, Any] = {"content_type": JSON, "mode": "json"}
    one, other = gzip.compress(b'{"a": 1, "b": 2}'), gzip.compress(b'{"b":2,"a":1.0}')
    assert compressed(one, **options) == compressed(other, **options) == of_json('{"a":1,"b":2}')
    assert compressed(gzip.compress(b"{"), **options) != compressed(gzip.compress(b"["), **options)


@pytest.mark.parametrize(
    "body",
    [
        b"no gzip at all",
        gzip.compress(b"order")[:-1],
        gzip.compress(b"order") + b"more",
        gzip.compress(b"order") + gzip.compress(b"more"),
        gzip.compress(b"longer than the limit"),
        gzip.compress(bytes(1_000_000)),
    ],
    ids=["no gzip", "cut short", "more behind it", "two members", "beyond the limit", "a bomb"],  # gzip stamps the time
)
@pytest.mark.parametrize("chunks", [1, 5, 1_000_000])
def test_what_cannot_be_decoded_within_the_limit_is_compared_by_its_bytes(body: bytes, chunks: int) -> None:
    whole = compressed(body, chunks=chunks, limit=10)
    assert whole == compressed(body, limit=10)
    assert whole != fingerprint(body)
    assert whole != compressed(body + b"x", limit=10)
    assert whole != compressed(gzip.compress(b"order"), limit=10)


def test_a_small_body_never_becomes_a_large_one() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        compressed(bomb, chunks=len(bomb), content_type=JSON, mode="json", limit=10_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
