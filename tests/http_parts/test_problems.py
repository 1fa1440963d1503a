"""The answers that are the middleware's own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dotmac.tasks.http import problems
from dotmac.tasks.http.problems import Problem, accepted_messages, retry_after

ALL = [
    (problems.key_missing("Idempotency-Key"), 400, "key-missing"),
    (problems.key_malformed("Idempotency-Key: is empty"), 400, "key-malformed"),
    (problems.host_malformed("why"), 400, "host-malformed"),
    (problems.credentials_missing(), 401, "credentials-missing"),
    (problems.payload_mismatch("Idempotency-Key"), 422, "payload-mismatch"),
    (problems.in_progress(3.2), 409, "in-progress"),
    (problems.outcome_unknown(), 409, "outcome-unknown"),
    (problems.claim_lost(), 409, "claim-lost"),
    (problems.body_too_large(10), 413, "body-too-large"),
    (problems.storage_unavailable(0), 503, "storage-unavailable"),
    (problems.encoding_not_acceptable(), 406, "encoding-not-acceptable"),
    (problems.saga_compensated("s1"), 409, "saga-compensated"),
    (problems.saga_failed("s1"), 500, "saga-failed"),
]


def sent(messages: list[dict[str, Any]]) -> tuple[int, dict[bytes, bytes], bytes]:
    start, body = messages
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    assert body["more_body"] is False
    headers = dict(start["headers"])
    assert len(headers) == len(start["headers"])
    return start["status"], headers, body["body"]


@pytest.mark.parametrize(("problem", "status", "slug"), ALL, ids=[slug for _, _, slug in ALL])
def test_a_problem_is_a_problem_document(problem: Problem, status: int, slug: str) -> None:
    answered, headers, body = sent(problem.messages())
    document = json.loads(body)
    assert answered == document["status"] == status
    assert document["type"] == f"urn:dotmac-tasks:problem:{slug}"
    assert document["title"]
    assert document["detail"]
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"content-length"] == b"%d" % len(body)
    assert b"connection" not in headers


@pytest.mark.parametrize(("problem", "status", "slug"), ALL, ids=[slug for _, _, slug in ALL])
def test_for_a_head_request_only_the_body_is_missing(problem: Problem, status: int, slug: str) -> None:
    assert sent(problem.messages(head=True)) == (*sent(problem.messages())[:2], b"")


def test_titles_are_those_of_their_kind() -> None:
    assert len({problem.title for problem, _, _ in ALL}) == len(ALL)


@pytest.mark.parametrize(
    ("seconds", "value"), [(-1.0, b"1"), (0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.1, b"2"), (30.0, b"30")]
)
def test_retry_after_is_whole_seconds_and_never_zero(seconds: float, value: bytes) -> None:
    assert retry_after(seconds) == (b"retry-after", value)


@pytest.mark.parametrize(
    ("problem", "value"),
    [(problems.in_progress(3.2), b"4"), (problems.storage_unavailable(0), b"1"), (problems.claim_lost(), b"1")],
)
def test_what_passes_says_when_to_come_again(problem: Problem, value: bytes) -> None:
    assert sent(problem.messages())[1][b"retry-after"] == value


def test_members_headers_and_further_headers() -> None:
    problem = Problem(418, "teapot", "T", "D", {"limit": 3, "status": "not this"}, ((b"x-a", b"1"),))
    _, headers, body = sent(problem.messages(extra_headers=[(b"x-b", b"2")]))
    assert json.loads(body) == {
        "type": "urn:dotmac-tasks:problem:teapot",
        "title": "T",
        "status": 418,
        "detail": "D",
        "limit": 3,
    }
    assert headers[b"x-a"] == b"1"
    assert headers[b"x-b"] == b"2"


def test_a_limit_is_told() -> None:
    assert json.loads(problems.body_too_large(10).body)["limit"] == 10


def test_a_saga_is_told_with_its_error_only_where_that_is_given() -> None:
    assert json.loads(problems.saga_compensated("s1", "card refused").body)["error"] == "card refused"
    document = json.loads(problems.saga_failed("s1", open_items=["refund"]).body)
    assert document["saga_id"] == "s1"
    assert document["saga_status"] == "failed"
    assert document["open_items"] == ["refund"]
    assert "error" not in document


def test_accepted_says_where_to_look_and_when() -> None:
    status, headers, body = sent(accepted_messages("s1", 1.5, location="/v1/sagas/s1"))
    assert status == 202
    assert json.loads(body) == {"saga_id": "s1", "status": "in_progress"}
    assert headers[b"location"] == b"/v1/sagas/s1"
    assert headers[b"retry-after"] == b"2"
    assert headers[b"content-type"] == b"application/json"


def test_accepted_without_a_saga_asks_to_repeat_the_request() -> None:
    _, headers, body = sent(accepted_messages(None, 1, head=False))
    assert json.loads(body) == {"status": "in_progress"}
    assert b"location" not in headers
    assert sent(accepted_messages(None, 1, head=True))[2] == b""
