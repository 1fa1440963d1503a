"""What is stored of a response, in which form, and what a replay of it sends."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.errors import EnvironmentFault, StoredResponseUnreadable
from dotmac.tasks.http.replay import StoredResponse, dump_response, is_bodyless, load_response, replay_messages
from saga.json_values import values

headers_of_responses = st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=12)), max_size=5).map(tuple)
responses = st.builds(
    StoredResponse,
    status=st.integers(200, 599),
    headers=headers_of_responses,
    body=st.none() | st.binary() | st.text().map(str.encode),
    result=values,
)


@given(responses)
def test_a_stored_response_comes_back_as_it_was(stored: StoredResponse) -> None:
    data = dump_response(stored)
    assert load_response(data) == stored
    assert json.loads(data)["v"] == 1


def test_a_text_can_be_read_in_the_storage() -> None:
    stored = StoredResponse(status=201, headers=((b"content-type", b"text/plain"),), body="Grüße".encode())
    assert json.loads(dump_response(stored)) == {
        "v": 1,
        "status": 201,
        "headers": [["content-type", "text/plain"]],
        "text": "Grüße",
    }


@pytest.mark.parametrize("body", [b"\xff\x00", b"\x01" * 1_000])
def test_what_is_no_text_or_would_be_long_as_one_is_base64(body: bytes) -> None:
    data = dump_response(StoredResponse(status=200, body=body))
    assert "base64" in json.loads(data)
    assert "text" not in json.loads(data)
    assert len(data) < 4 * len(body) / 3 + 60


def test_a_body_that_was_not_kept_is_not_an_empty_one() -> None:
    assert load_response(dump_response(StoredResponse(status=200, body=None))).body_kept is False
    assert load_response(dump_response(StoredResponse(status=200, body=b""))).body == b""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'"gAAAA"', "is sealed"),
        (b"", "is damaged"),
        (b"{}", "is damaged"),
        (b'{"v":2,"whatever":[]}', "has form 2, this version of the package reads form 1; upgrade it"),
        (b'{"v":1,"status":"secret","headers":[]}', "is damaged"),
        (b'{"v":1,"status":200,"headers":[["a","\xe2\x82\xac"]],"text":""}', "is damaged"),
        (b'{"v":1,"status":200,"headers":[],"base64":"secret"}', "is damaged"),
    ],
)
def test_what_cannot_be_read_is_refused_and_not_repeated(data: bytes, reason: str) -> None:
    with pytest.raises(StoredResponseUnreadable, match=reason) as refused:
        load_response(data)
    assert isinstance(refused.value, EnvironmentFault)
    assert "secret" not in str(refused.value)


def test_headers_that_belong_to_the_first_exchange_are_not_stored() -> None:
    sent = [(b"Content-Type", b"text/plain"), (b"Set-Cookie", b"a"), (b"X-Shard", b"7"), (b"Content-Length", b"1")]
    stored = StoredResponse.of(200, sent, b"x", result={"a": 1}, unstored=[b"x-shard"])
    assert stored == StoredResponse(status=200, headers=((b"content-type", b"text/plain"),), body=b"x", result={"a": 1})


@pytest.mark.parametrize("status", [204, 304])
def test_where_no_body_may_be_none_is_stored(status: int) -> None:
    assert StoredResponse.of(status, [], b"against the rules").body == b""
    assert StoredResponse.of(status, [], None).body_kept


def replayed(stored: StoredResponse, **options: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    start, body = replay_messages(stored, **options)
    assert start["type"] == "http.response.start"
    assert body["type"] == "http.response.body"
    assert body["more_body"] is False
    return start["status"], start["headers"], body["body"]


def test_a_replay_has_status_body_and_repeated_headers_in_their_order() -> None:
    headers = ((b"link", b"<a>"), (b"content-type", b"text/plain"), (b"link", b"<b>"), (b"x-name", b"\xe9"))
    stored = StoredResponse(status=201, headers=headers, body=b"four")
    marker = (b"x-cache-hit", b"true")
    assert replayed(stored, extra_headers=[marker]) == (201, [*headers, (b"content-length", b"4"), marker], b"four")


@pytest.mark.parametrize("status", [100, 103, 204, 304])
def test_a_replay_without_a_body_has_no_length(status: int) -> None:
    assert is_bodyless(status)
    assert replayed(StoredResponse(status=status, headers=((b"etag", b'"a"'),))) == (status, [(b"etag", b'"a"')], b"")


def test_an_empty_body_has_the_length_zero() -> None:
    assert replayed(StoredResponse(status=200)) == (200, [(b"content-length", b"0")], b"")


def test_a_head_request_gets_no_body() -> None:
    assert replayed(StoredResponse(status=200, body=b"four"), head=True) == (200, [(b"content-length", b"4")], b"")
    assert replayed(StoredResponse(status=200), head=True) == (200, [], b"")
    assert replayed(StoredResponse(status=200, body=None), head=True)[2] == b""


def test_a_body_that_was_not_kept_is_replayed_as_the_news_that_the_request_was_carried_out() -> None:
    headers = ((b"content-type", b"video/mp4"), (b"content-encoding", b"gzip"), (b"etag", b'"a"'), (b"location", b"/1"))
    status, sent, body = replayed(StoredResponse(status=201, headers=headers, body=None))
    document = msgspec.json.decode(body)
    assert status == document["status"] == 201
    assert document["type"] == "urn:dotmac-tasks:problem:body-not-kept"
    assert sent == [
        (b"location", b"/1"),
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
    ]
