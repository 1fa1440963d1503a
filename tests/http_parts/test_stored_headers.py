"""Headers that a replay has, and those that it never has."""

from __future__ import annotations

import pytest

from dotmac.tasks.http.stored_headers import storable_headers


@pytest.mark.parametrize(
    "name",
    [
        "Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Location", "ETag", "Vary",
        "Link", "Cache-Control", "Expires", "Last-Modified", "Retry-After", "WWW-Authenticate", "X-Order-Id", "X-Rate",
        "Access", "Content-Security-Policy",
    ],
)  # fmt: skip
def test_stored(name: str) -> None:
    assert storable_headers([(name.encode(), b"v")]) == ((name.lower().encode(), b"v"),)


@pytest.mark.parametrize(
    "name",
    [
        "Set-Cookie", "Set-Cookie2", "Authorization", "Proxy-Authorization", "Authentication-Info", "Date", "Server",
        "Via", "Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Proxy-Authenticate",
        "Alt-Svc",
        "Content-Length", "X-Request-ID", "X-Correlation-ID", "traceparent", "tracestate", "B3", "X-B3-TraceId",
        "RateLimit", "RateLimit-Policy", "RateLimit-Remaining", "X-RateLimit-Limit", "X-Rate-Limit-Reset",
        "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Server-Timing", "X-Process-Time",
    ],
)  # fmt: skip
def test_never_stored(name: str) -> None:
    assert storable_headers([(name.encode(), b"v"), (name.upper().encode(), b"w")]) == ()


def test_what_the_connection_header_names_is_not_stored() -> None:
    headers = [(b"X-Hop", b"1"), (b"connection", b"close, x-hop"), (b"Connection", b"X-Other"), (b"x-other", b"2")]
    assert storable_headers([*headers, (b"x-end", b"3")]) == ((b"x-end", b"3"),)


def test_the_application_can_leave_out_more() -> None:
    assert storable_headers([(b"X-Shard", b"1"), (b"x-end", b"3")], unstored=[b"X-SHARD"]) == ((b"x-end", b"3"),)


def test_repeated_headers_keep_their_order() -> None:
    assert storable_headers([(b"A", b"1"), (b"B", b"2"), (b"a", b"3")]) == ((b"a", b"1"), (b"b", b"2"), (b"a", b"3"))
