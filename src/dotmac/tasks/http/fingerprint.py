"""What must be equal for two requests under one key to be the same request. Pure, and fed piece by piece.

Method, path, query, the media type, chosen header fields and the body count. Of the body either the bytes count, or,
in ``json`` mode, what a JSON document means (see `canonical`). Of a multipart form the parts count, not the boundary
(see `multipart`). What cannot be read in the way that its media type announces is compared by its bytes, so a
fingerprint never fails.
"""

from __future__ import annotations

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


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """What is known of a request before its body.

    Attributes:
        method: In capitals.
        path: As the client sees it.
        query: The query string as it was sent. Its order counts: no other reading is right for every application.
        content_type: The value of the header, empty if there is none. Only the media type counts, no parameter.
        fields: The lines of the header fields that count, names in lower case. Their order counts.
    """

    method: str
    path: str
    query: bytes = b""
    content_type: bytes = b""
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
        limit: Bytes of a JSON body up to which its meaning is looked at; a longer one is compared by its bytes.
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

    def update(self, chunk: bytes) -> None:
        """Take in the next piece of the body."""
        self._bytes.update(chunk)
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
        if self._json is not None:
            try:
                canonical = canonical_json(bytes(self._json), chosen=tuple(self._chosen), ignored=tuple(self._ignored))
            except NotCanonical:  # then its bytes are what is compared
                return b"bytes", self._bytes.digest()
            return b"json", sha256(canonical).digest()
        form = None if self._form is None else self._form.digest()
        return (b"bytes", self._bytes.digest()) if form is None else (b"form", form)


def _is_json(media_type: bytes) -> bool:
    """Whether the body is announced as JSON."""
    return media_type in {b"application/json", b"text/json"} or media_type.endswith(b"+json")
