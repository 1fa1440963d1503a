"""Whether a stored body suits another request's Accept-Encoding, and how it is made to. Pure.

A compressed response was compressed because the first request accepted that. A repetition may come from a client that
does not: from another library, or through another proxy.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import msgspec

from .problems import Header
from .replay import StoredResponse

_ALIASES = {b"x-gzip": b"gzip", b"x-compress": b"compress"}
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}  # what the standard library can undo
_MOST_ITEMS = 100  # codings that are looked at; there are a dozen
_LARGEST = 64 * 1024 * 1024
# They are of the bytes as they were encoded.
_OF_THE_ENCODING = frozenset({b"content-encoding", b"content-md5", b"content-digest", b"repr-digest", b"digest"})


def suited(stored: StoredResponse, accept_encoding: bytes | None) -> StoredResponse | None:
    """The stored response as a client that sends this Accept-Encoding can read it, decoded if need be.

    Args:
        stored: The response.
        accept_encoding: All lines of the request's header, joined by commas; None: it has none.

    Returns:
        The response, or None: it is in a coding that is neither accepted nor known here.
    """
    if not stored.body or acceptable(stored.headers, accept_encoding):
        return stored
    body: bytes | None = stored.body
    for coding in reversed(content_codings(stored.headers)):
        body = None if body is None else _decoded(body, coding)
    if body is None:
        return None
    headers = tuple(_weakened(header) for header in stored.headers if header[0] not in _OF_THE_ENCODING)
    return msgspec.structs.replace(stored, headers=headers, body=body)


def acceptable(headers: Iterable[Header], accept_encoding: bytes | None) -> bool:
    """Whether a client that sends this Accept-Encoding can read a body with these headers.

    Without the header only plain bodies are taken for readable. RFC 9110 allows any coding then; clients that cannot
    decode are the ones that leave it out.

    Args:
        headers: Of the stored response.
        accept_encoding: All lines of the request's header, joined by commas; None: it has none.
    """
    codings = content_codings(headers)
    if not codings:
        return True
    weights = _weights(accept_encoding or b"")
    return all(weights.get(coding, weights.get(b"*", 0.0)) > 0 for coding in codings)


def content_codings(headers: Iterable[Header]) -> list[bytes]:
    """The codings of a body in the order in which they were applied, ``identity`` left out."""
    named = [
        token.strip().lower() for name, value in headers if name == b"content-encoding" for token in value.split(b",")
    ]
    return [_ALIASES.get(coding, coding) for coding in named if coding not in {b"", b"identity"}]


def _weights(accept_encoding: bytes) -> dict[bytes, float]:
    weights: dict[bytes, float] = {}
    for item in accept_encoding.split(b",", _MOST_ITEMS)[:_MOST_ITEMS]:
        coding, *parameters = (part.strip().lower() for part in item.split(b";"))
        if coding:
            weights[_ALIASES.get(coding, coding)] = _weight(parameters)
    return weights


def _weight(parameters: Iterable[bytes]) -> float:
    """The value of ``q``; a coding whose weight cannot be read is not accepted."""
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _decoded(body: bytes, coding: bytes) -> bytes | None:
    """The body without this coding; None: unknown, damaged, or longer than anybody would store."""
    if coding not in _WINDOW_BITS:
        return None
    decoder = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        plain = decoder.decompress(body, _LARGEST)
    except zlib.error:
        return None
    return plain if decoder.eof and not decoder.unused_data else None


def _weakened(header: Header) -> Header:
    """An entity tag that does not claim the bytes to be the same (RFC 9110, section 8.8.3)."""
    name, value = header
    return (name, b"W/" + value) if name == b"etag" and not value.startswith(b"W/") else header
