"""A digest of a multipart form that does not depend on its boundary, made while the form passes by. Pure.

A client that repeats an upload chooses a new boundary, so the bytes of the two differ where their meaning does not.
Here each part is hashed by itself, its headers and content as they are, and then the row of these digests. Memory
holds a chunk and a boundary, however large a part is.
"""

from __future__ import annotations

import hashlib
import re

_LINE_END = b"\r\n"
_CLOSING = b"--"
_BOUNDARY = re.compile(rb';[ \t]*boundary=(?:"([^"\\]{1,256})"|([^\s;,"]{1,256}))', re.IGNORECASE)


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary that a Content-Type header names; None: none, or not just one."""
    found = _BOUNDARY.findall(content_type)
    return found[0][0] or found[0][1] if len(found) == 1 else None


class MultipartDigest:
    """Feed it the body, in any chunks, then ask for the digest.

    Args:
        boundary: As the Content-Type header names it.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = _LINE_END + b"--" + boundary
        self._unread = bytearray(_LINE_END)  # a form begins with a delimiter that has no line end before it
        self._part: hashlib._Hash | None = None  # None: before the first part
        self._parts = hashlib.sha256()
        self._ended = False

    def update(self, chunk: bytes) -> None:
        """Take in the next piece of the body; what follows the closing delimiter means nothing."""
        if self._ended:
            return
        self._unread += chunk
        searched = 0
        while (found := self._unread.find(self._delimiter, searched)) >= 0:
            after = found + len(self._delimiter)
            mark = bytes(self._unread[after : after + len(_CLOSING)])
            if len(mark) < len(_CLOSING):  # the next chunk tells what this is
                self._read(found)
                return
            if mark not in {_CLOSING, _LINE_END}:  # a line of the content that only begins like the delimiter
                searched = found + 1
                continue
            self._end_part(found)
            if mark == _CLOSING:
                self._ended = True
                return
            del self._unread[: len(self._delimiter) + len(mark)]
            searched = 0
        self._read(max(len(self._unread) - len(self._delimiter) + 1, 0))

    def digest(self) -> bytes | None:
        """32 bytes that are equal for equal rows of parts; None: this was no complete form."""
        return self._parts.digest() if self._ended else None

    def _end_part(self, length: int) -> None:
        self._read(length)
        if self._part is not None:
            self._parts.update(self._part.digest())
        self._part = hashlib.sha256()

    def _read(self, length: int) -> None:
        if self._part is not None:
            self._part.update(self._unread[:length])
        del self._unread[:length]
