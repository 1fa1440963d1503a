"""What must be equal for two requests under one key to be the same request. Pure, and fed piece by piece.

Method, path, query, the media type, chosen header fields and the body count. Of the body either the bytes count, or,
in ``json`` mode, what a JSON document means (see `canonical`). Of a multipart form the parts count, not the boundary
(see `multipart`). What cannot be read in the way that its media type announces is compared by its bytes, so a
fingerprint never fails.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from hashlib import sha256
from typing import Literal

import msgspec

from .canonical import NotCanonical, canonical_json
from .multipart import MultipartDigest, boundary_of
from .netstrings import netstrings

FingerprintMode = Literal["bytes", "json"]
CANONICAL_LIMIT = 1024 * 1024
_COSTLY = 16 * 1024
_WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"x-gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """What is known of a request before its body.

    Attributes:
        method: In capitals.
        path: As the client sees it.
        query: The query string as it was sent. Its order counts: no other reading is right for every application.
        content_type: The value of the header, empty if there is none. Only the media type counts, no parameter.
        content_encoding: The value of the header, empty if there is none. A body in gzip or deflate is compared by
            its content, since two compressions of one content differ.
        fields: The lines of the header fields that count, names in lower case. Their order counts.
    """

    method: str
    path: str
    query: bytes = b""
    content_type: bytes = b""
    content_encoding: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def media_type(self) -> bytes:
        """Such as ``application/json``, in lower case."""
        return self.content_type.partition(b";")[0].strip().lower()


class Fingerprint:
    """Feed it the body, in any chunks, then ask for the fingerprint.

    Memory holds the JSON body up to the limit, or no more than a chunk.

    Args:
        head: The request without its body.
        mode: ``bytes`` or ``json``.
        chosen: The only members of a JSON body that count, by dotted paths; none: all.
        ignored: The members of a JSON body that do not count, by dotted paths.
        limit: Bytes of a JSON body up to which its meaning is looked at, and of the content of a compressed one; a
            longer one is compared by its bytes.
    """

    def __init__(
        self,
        head: RequestHead,
        mode: FingerprintMode = "bytes",
        *,
        chosen: Collection[str] = (),
        ignored: Collection[str] = (),
        limit: int = CANONICAL_LIMIT,
    ) -> None:
        self._head = head
        self._chosen, self._ignored, self._limit = chosen, ignored, limit
        self._bytes = sha256()
        self._media_type = head.media_type
        self._json = bytearray() if mode == "json" and _is_json(self._media_type) else None
        boundary = boundary_of(head.content_type) if self._media_type == b"multipart/form-data" else None
        self._form = None if boundary is None else MultipartDigest(boundary)
        bits = _WINDOW_BITS.get(head.content_encoding.strip().lower())
        self._content = None if bits is None else _Content(bits, limit)

    def update(self, chunk: bytes) -> None:
        """Take in the next piece of the body."""
        self._bytes.update(chunk)
        if self._content is not None:
            chunk = self._content.decoded(chunk)
        if self._form is not None:
            self._form.update(chunk)
        if self._json is not None:
            if len(self._json) + len(chunk) <= self._limit:
                self._json += chunk
            else:
                self._json = None

    @property
    def is_costly(self) -> bool:
        """Whether `finish` takes so long that it should not be called in an event loop (JSON: 0.2 s for a MiB)."""
        return self._json is not None and len(self._json) > _COSTLY

    def finish(self) -> str:
        """64 hexadecimal digits."""
        head = self._head
        kind, digest = self._body()
        path = head.path.encode("utf-8", "surrogatepass")
        fields = netstrings(part for field in head.fields for part in field)
        parts = (head.method.encode("utf-8"), path, head.query, self._media_type, fields, kind, digest)
        return sha256(netstrings(parts)).hexdigest()

    def _body(self) -> tuple[bytes, bytes]:
        """In which way the body was read, and what came of it."""
        content = self._content
        if content is not None and not content.is_whole:
            return b"encoded", self._bytes.digest()
        plain = self._bytes if content is None else content.digest
        if self._json is not None:
            try:
                canonical = canonical_json(bytes(self._json), chosen=tuple(self._chosen), ignored=tuple(self._ignored))
            except NotCanonical:  # then its bytes are what is compared
                return b"bytes", plain.digest()
            return b"json", sha256(canonical).digest()
        form = None if self._form is None else self._form.digest()
        return (b"bytes", plain.digest()) if form is None else (b"form", form)


class _Content:
    """The content of a compressed body, decoded piece by piece; the limit bounds what a small body can become."""

    def __init__(self, window_bits: int, limit: int) -> None:
        self._decoder = zlib.decompressobj(window_bits)
        self._left = limit
        self._failed = False
        self.digest = sha256()

    @property
    def is_whole(self) -> bool:
        """Whether the whole content was decoded, and nothing follows it."""
        return self._decoder.eof and not self._failed

    def decoded(self, chunk: bytes) -> bytes:
        """The content of the next piece; empty once the body is damaged or its content is longer than the limit."""
        if self._failed or self._decoder.eof:
            self._failed = self._failed or bool(chunk)
            return b""
        try:
            content = self._decoder.decompress(chunk, self._left + 1)
        except zlib.error:
            content, self._failed = b"", True
        self._left -= len(content)
        if self._left < 0 or self._decoder.unconsumed_tail or self._decoder.unused_data:
            content, self._failed = b"", True
        self.digest.update(content)
        return content


def _is_json(media_type: bytes) -> bool:
    """Whether the body is announced as JSON."""
    return media_type in {b"application/json", b"text/json"} or media_type.endswith(b"+json")
