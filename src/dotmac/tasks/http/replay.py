"""The response that is stored under a key: what is kept of it, its stored form, and how it is sent again. Pure.

A replay has the status, the body and the headers of the first response, repeated ones in their order, but for those
that belong to one exchange (dates, hop-by-hop fields, request ids, rate limits) or to one receiver (cookies,
credentials, CORS). The stored form is a JSON document with a version, so that later versions can read it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any

import msgspec

from ..errors import StoredResponseUnreadable
from ..jsonvalue import encode
from .problems import PROBLEM_JSON, TYPE_PREFIX, Header
from .stored_headers import storable_headers

VERSION = 1
_BODYLESS = frozenset({*range(100, 200), 204, 304})
# These describe the body that was sent first; without it they would describe another one wrongly.
_OF_THE_BODY = frozenset(
    {
        b"content-type", b"content-encoding", b"content-language", b"content-range", b"content-disposition",
        b"content-md5", b"content-digest", b"repr-digest", b"digest", b"etag", b"last-modified", b"accept-ranges",
    }
)  # fmt: skip


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response as it is stored.

    Attributes:
        status: The HTTP status.
        headers: Name in lower case and value, in their order, repeats included.
        body: The body; None: it was too long to be kept.
        result: What the handler set as the result of its operation, JSON.
        cookies: Digests of the cookies that the response has set, where they count.
    """

    status: int
    headers: tuple[Header, ...] = ()
    body: bytes | None = b""
    result: Any = None
    cookies: tuple[str, ...] = ()

    @property
    def body_kept(self) -> bool:
        """Whether the body can be sent again."""
        return self.body is not None

    @classmethod
    def of(
        cls,
        status: int,
        headers: Iterable[Header],
        body: bytes | None,
        *,
        result: Any = None,
        unstored: Iterable[bytes] = (),
        cookies: tuple[str, ...] = (),
    ) -> StoredResponse:
        """What is to be stored of a response: all but the headers that must not be sent again.

        Args:
            status: The HTTP status.
            headers: As the application sent them.
            body: The whole body; None: it is too long to be kept.
            result: JSON.
            unstored: Names of further headers to leave out.
            cookies: Digests of the cookies that it sets, where they count.
        """
        kept = storable_headers(headers, unstored)
        body = b"" if is_bodyless(status) else body
        return cls(status=status, headers=kept, body=body, result=result, cookies=cookies)


class _Document(msgspec.Struct, omit_defaults=True):
    """The stored form. Exactly one of `text` and `base64` is there if the body was kept."""

    v: int
    status: int
    headers: list[tuple[str, str]]
    text: msgspec.Raw | None = None
    base64: msgspec.Raw | None = None
    result: Any = None
    cookies: tuple[str, ...] = ()


class _Reading(msgspec.Struct):
    """The same, as it is read: msgspec checks what it is told the types of."""

    v: int
    status: int
    headers: list[tuple[str, str]]
    text: str | None = None
    base64: bytes | None = None
    result: Any = None
    cookies: tuple[str, ...] = ()


class _Version(msgspec.Struct):
    v: int


def dump_response(stored: StoredResponse) -> bytes:
    """The stored form: a JSON object.

    A body that is text stands in it as text, unless base64 is shorter; any other body as base64.
    """
    headers = [_as_text(header) for header in stored.headers]
    document = _Document(VERSION, stored.status, headers, result=stored.result, cookies=stored.cookies)
    if stored.body is not None:
        text = _text_of(stored.body)
        if text is not None and len(text) <= _length_in_base64(stored.body):
            document.text = msgspec.Raw(text)
        else:
            document.base64 = msgspec.Raw(encode(b64encode(stored.body).decode()))
    return encode(document)


def load_response(data: bytes) -> StoredResponse:
    """A response from its stored form.

    Raises:
        StoredResponseUnreadable: It is sealed, damaged, or of a later version.
    """
    if data[:1] == b'"':
        raise StoredResponseUnreadable("the stored response is sealed; give the middleware the codec that sealed it")
    try:
        version = msgspec.json.decode(data, type=_Version).v
        if version != VERSION:
            raise StoredResponseUnreadable(
                f"the stored response has form {version}, this version of the package reads form {VERSION}; upgrade it"
            )
        read = msgspec.json.decode(data, type=_Reading)
        headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in read.headers)
    except (msgspec.DecodeError, UnicodeError) as error:  # the message could quote the response: not repeated
        raise StoredResponseUnreadable("the stored response is damaged") from error
    body = read.base64 if read.text is None else read.text.encode()
    return StoredResponse(status=read.status, headers=headers, body=body, result=read.result, cookies=read.cookies)


def replay_messages(
    stored: StoredResponse, extra_headers: Iterable[Header] = (), *, head: bool = False
) -> list[dict[str, Any]]:
    """The ASGI messages that send a stored response again.

    Where the body was not kept, the result that the handler set takes its place, as JSON. Without one a problem
    document under the first status says so: the request was carried out, and the client learns how it ended and what
    it cannot have.

    Args:
        stored: The response.
        extra_headers: Added at the end, such as the one that marks a replay.
        head: For a HEAD request, to which no body may be sent.
    """
    headers, body = list(stored.headers), stored.body
    if body is None:
        headers = [header for header in headers if header[0] not in _OF_THE_BODY]
        set_by_handler = stored.result is not None
        headers.append((b"content-type", b"application/json" if set_by_handler else PROBLEM_JSON))
        body = encode(stored.result) if set_by_handler else _not_kept(stored.status)
    if not is_bodyless(stored.status) and not (head and not body):
        headers.append((b"content-length", b"%d" % len(body)))
    headers.extend(extra_headers)
    sent = b"" if head or is_bodyless(stored.status) else body
    return [
        {"type": "http.response.start", "status": stored.status, "headers": headers, "trailers": False},
        {"type": "http.response.body", "body": sent, "more_body": False},
    ]


def is_bodyless(status: int) -> bool:
    """Whether responses of this status have no body and no length (RFC 9110, section 6.4.1)."""
    return status in _BODYLESS


def _not_kept(status: int) -> bytes:
    return encode(
        {
            "type": TYPE_PREFIX + "body-not-kept",
            "title": "Request was carried out; its response body was too long to be kept",
            "status": status,
            "detail": "Status and headers are those of the first response. The request is not carried out again.",
        }
    )


def _as_text(header: Header) -> tuple[str, str]:
    return header[0].decode("latin-1"), header[1].decode("latin-1")


def _length_in_base64(body: bytes) -> int:
    """As a JSON string."""
    return (len(body) + 2) // 3 * 4 + 2


def _text_of(body: bytes) -> bytes | None:
    """The body as a JSON string; None: it is no text."""
    try:
        return encode(body.decode())
    except UnicodeDecodeError:
        return None
