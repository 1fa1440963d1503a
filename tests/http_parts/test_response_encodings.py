"""A stored body that is compressed, and a client that may not be able to read it."""

from __future__ import annotations

import gzip
import zlib

import pytest

from dotmac.tasks.http.encodings import acceptable, suited
from dotmac.tasks.http.replay import StoredResponse

GZIP = (b"content-encoding", b"gzip")


@pytest.mark.parametrize(
    ("coding", "accepted"),
    [
        (b"gzip", b"gzip"),
        (b"gzip", b"deflate, gzip;q=0.5"),
        (b"gzip", b"GZIP"),
        (b"x-gzip", b"gzip"),
        (b"gzip", b"x-gzip"),
        (b"gzip", b"*"),
        (b"gzip", b"br;q=0, *;q=0.1"),
        (b"gzip, br", b"br, gzip"),
        (b"identity", None),
        (b"", b""),
    ],
)
def test_acceptable(coding: bytes, accepted: bytes | None) -> None:
    assert acceptable([(b"content-encoding", coding)], accepted)


@pytest.mark.parametrize(
    ("coding", "accepted"),
    [
        (b"gzip", None),
        (b"gzip", b""),
        (b"gzip", b"identity"),
        (b"gzip", b"br"),
        (b"gzip", b"gzip;q=0"),
        (b"gzip", b"gzip;q=0, *"),
        (b"gzip", b"gzip; q=nonsense"),
        (b"gzip", b"*;q=0.0"),
        (b"gzip, br", b"gzip"),
    ],
)
def test_not_acceptable(coding: bytes, accepted: bytes | None) -> None:
    assert not acceptable([(b"content-encoding", coding)], accepted)


def test_other_parameters_are_no_weights() -> None:
    assert acceptable([GZIP], b"gzip;level=0")


def test_a_body_without_coding_suits_everybody() -> None:
    stored = StoredResponse(status=200, body=b"plain")
    assert suited(stored, None) is stored
    assert suited(stored, b"br") is stored


def test_a_body_in_an_accepted_coding_stays_as_it_is() -> None:
    stored = StoredResponse(status=200, headers=(GZIP,), body=gzip.compress(b"plain"))
    assert suited(stored, b"gzip, br") is stored


@pytest.mark.parametrize("body", [b"", None])
def test_where_there_is_no_body_nothing_has_to_be_read(body: bytes | None) -> None:
    stored = StoredResponse(status=200, headers=(GZIP,), body=body)
    assert suited(stored, None) is stored


def test_a_body_is_decoded_for_a_client_that_does_not_accept_its_coding() -> None:
    headers = ((b"vary", b"Accept-Encoding"), GZIP, (b"content-digest", b"sha-256=:x:"), (b"etag", b'"a"'))
    stored = StoredResponse(status=201, headers=headers, body=gzip.compress(b"plain"), result=7)
    assert suited(stored, b"br") == StoredResponse(
        status=201, headers=((b"vary", b"Accept-Encoding"), (b"etag", b'W/"a"')), body=b"plain", result=7
    )


def test_codings_are_undone_in_the_order_opposite_to_that_of_their_making() -> None:
    body = zlib.compress(gzip.compress(b"plain"))
    stored = StoredResponse(
        status=200, headers=((b"content-encoding", b"gzip, deflate"), (b"etag", b'W/"a"')), body=body
    )
    assert suited(stored, None) == StoredResponse(status=200, headers=((b"etag", b'W/"a"'),), body=b"plain")


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"br", b"anything"),
        (b"br, gzip", gzip.compress(b"anything")),
        (b"gzip, br", gzip.compress(b"anything")),
        (b"gzip", b"damaged"),
        (b"gzip", gzip.compress(b"cut off")[:-3]),
        (b"gzip", gzip.compress(b"a") + gzip.compress(b"b")),
        (b"gzip", gzip.compress(bytes(64 * 1024 * 1024 + 1), 1)),
    ],
    ids=["unknown", "unknown inside", "unknown outside", "damaged", "cut off", "two members", "a bomb"],
)
def test_a_body_that_cannot_be_decoded_suits_nobody_who_does_not_accept_it(coding: bytes, body: bytes) -> None:
    assert suited(StoredResponse(status=200, headers=((b"content-encoding", coding),), body=body), None) is None
