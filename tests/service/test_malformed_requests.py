"""Malformed requests get an answer that says so, and never a 500, before and behind the sign-in."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from dotmac.tasks import InvalidInput
from dotmac.tasks.service.api.query import Query
from dotmac.tasks.service.guard import OPEN_PATHS
from middleware.asgi_client import Client
from service.house import OPERATOR, bearer, guarded_access, house

PATHS = ["/v1/sagas", "/login", "/", "/nope", "/health/live", "/logout"]
HOST = ("Host", "127.0.0.1:8080")


@pytest.mark.parametrize("token", [None, OPERATOR], ids=["stranger", "operator"])
@pytest.mark.parametrize("host", ["[::1", "", ".", "\xff", "a\x00b", "a@b", "http://x", "a:99999", "][", "a b"])
async def test_a_malformed_host_is_refused(host: str, token: str | None) -> None:
    async with house(guarded_access()) as service:
        client = Client(service.app, tenant=None)
        for path in PATHS:
            for method in ("GET", "POST"):
                headers = [("Host", host), ("Accept", "text/plain"), *(bearer(token).items() if token else [])]
                answer = await client.post(path, method=method, headers=headers)
                expected = (400, "request-malformed") if token or path in OPEN_PATHS else (401, "unauthorized")
                assert (answer.status, answer.problem) == expected


@pytest.mark.parametrize(
    "scope",
    [
        {"path": "/sagas/\udcff"},
        {"query_string": b"\xff=\xff"},
        {"path": "/login", "headers": [HOST, ("Host", "evil.example")]},
    ],
)
async def test_what_is_no_utf8_or_said_twice_is_refused(scope: dict[str, Any]) -> None:
    async with house(guarded_access()) as service:
        answer = await Client(service.app, tenant=None).post(**{"path": "/v1/sagas", "headers": [HOST]} | scope)
    assert (answer.status, answer.problem) == (400, "request-malformed")


@pytest.mark.parametrize("token", [None, OPERATOR], ids=["stranger", "operator"])
@pytest.mark.parametrize(
    "odd",
    [
        {"path": "http://evil.example/v1/sagas"},
        {"path": "*"},
        {"path": ""},
        {"path": "//evil.example/"},
        {"path": "/v1/sagas/\x00"},
        {"path": "/static/\x00"},
        {"query_string": b"tenant_id=%00&limit=%zz"},
        {"query_string": b"next=http://[::1"},
        {"query_string": b"limit=" + b"9" * 6_000},
        {"header": ("Cookie", "\xff\x00;=;dotmac_tasks_session=\xff.\xff.\xff")},
        {"header": ("Content-Length", "9" * 5_000)},
        {"header": ("Content-Type", "\xff")},
        {"header": ("Origin", "http://[::1")},
        {"header": ("Authorization", "Bearer \xff\x00")},
        {"header": ("Idempotency-Key", "\xff")},
        {"header": ("Last-Event-ID", "9" * 5_000)},
        {"body": b"[" * 100_000},
        {"body": b'{"tenant_id":"\\ud800","workflow_type":"x","steps":[]}'},
        {"body": b'{"tenant_id":"a","workflow_type":"x","priority":' + b"9" * 5_000 + b"}"},
    ],
    ids=lambda odd: f"{next(iter(odd))} {str(next(iter(odd.values())))[:24]!r}",
)
async def test_odd_requests_are_answered_without_an_error_of_the_server(odd: dict[str, Any], token: str | None) -> None:
    scope = {"path": "/v1/sagas"} | odd
    header, body = scope.pop("header", ("Accept", "text/html")), scope.pop("body", b"{}")
    query = {name: value for name, value in scope.items() if name == "query_string"}
    headers = [HOST, header, *(bearer(token).items() if token else [])]
    async with house(guarded_access()) as service:
        client = Client(service.app, tenant=None)
        for method in ("GET", "POST"):
            answer = await client.post(scope["path"], body, method=method, headers=headers, **query)
            assert answer.status < 500


async def test_a_parameter_that_is_given_often_is_refused_at_its_second() -> None:
    query = "&".join(["limit=1"] * 100_000)
    request = Request({"type": "http", "headers": [], "query_string": query.encode()})
    with pytest.raises(InvalidInput, match=r"^limit: must be given once"):
        Query(request, ["limit"])
