"""What the middleware answers in its own name: RFC 9457 problem documents, and 202 for work that goes on.

A problem's type is ``urn:dotmac-tasks:problem:<slug>``: a name to compare, not an address to open, so that it stays
the same wherever the application runs. No answer asks to close the connection: a client that met a 409 shall be able
to retry on the connection that it has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..jsonvalue import encode

TYPE_PREFIX = "urn:dotmac-tasks:problem:"
PROBLEM_JSON = b"application/problem+json"
Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem document and the headers that go with it.

    Attributes:
        status: The HTTP status.
        slug: The last part of the problem's type.
        title: Of the kind of problem, the same each time.
        detail: Of this occurrence, for people: what to do.
        members: Further members of the document, JSON.
        headers: Further headers of the response.
    """

    status: int
    slug: str
    title: str
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[Header, ...] = ()

    @property
    def body(self) -> bytes:
        """The document as JSON."""
        document = {
            **self.members,
            "type": TYPE_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        return encode(document)

    def messages(self, *, head: bool = False, extra_headers: Iterable[Header] = ()) -> list[dict[str, Any]]:
        """The ASGI messages that send it. `head`: for a HEAD request, to which no body may be sent."""
        return response_messages(self.status, PROBLEM_JSON, self.body, [*self.headers, *extra_headers], head=head)


def response_messages(
    status: int, content_type: bytes, body: bytes, headers: Iterable[Header] = (), *, head: bool = False
) -> list[dict[str, Any]]:
    """The two ASGI messages of a complete response; the length stays that of the body for a HEAD request."""
    own = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    return [
        {"type": "http.response.start", "status": status, "headers": [*own, *headers], "trailers": False},
        {"type": "http.response.body", "body": b"" if head else body, "more_body": False},
    ]


def retry_after(seconds: float) -> Header:
    """The Retry-After header: whole seconds, rounded up, never less than one."""
    return b"retry-after", b"%d" % max(math.ceil(seconds), 1)


def key_missing(header: str) -> Problem:
    """400: this route cannot be used without a key."""
    detail = f"Send a key of your choice in the {header} header, and the same one when you repeat this request."
    return Problem(400, "key-missing", "Idempotency key is missing", detail)


def key_malformed(reason: str) -> Problem:
    """400: what came as a key is none. `reason` is the text of the error, which never repeats the key."""
    return Problem(400, "key-malformed", "Idempotency key is malformed", reason)


def identity_malformed(reason: str) -> Problem:
    """400: what names the tenant or the user is no name."""
    return Problem(400, "identity-malformed", "Tenant or user is malformed", reason)


def host_malformed(reason: str) -> Problem:
    """400: the Host header is malformed, so the host that the request is meant for is unknown."""
    return Problem(400, "host-malformed", "Host is malformed", reason)


def credentials_missing() -> Problem:
    """401: this route takes keys only from known users or with credentials; the body was not read."""
    detail = "Send your credentials with this request. Nothing was carried out."
    challenge = ((b"www-authenticate", b"Bearer"),)
    return Problem(401, "credentials-missing", "Credentials are missing", detail, headers=challenge)


def payload_mismatch(header: str, *, cookies_count: bool = False) -> Problem:
    """422: the key was used for another request. `cookies_count`: cookies or senders are compared."""
    detail = f"This {header} was used for another request. Choose a new key, or repeat that request as it was."
    if cookies_count:
        detail += (
            " Cookies, and headers that may name a user, are compared as well, since this application does not say "
            "which of them do (session_cookies, credentials or identity of the middleware)."
        )
    return Problem(422, "payload-mismatch", "Idempotency key was used for another request", detail)


def in_progress(seconds: float) -> Problem:
    """409: the first request under this key has not ended. `seconds` until it is worth a look."""
    detail = "The first request under this key is still being carried out. Repeat this one to get its response."
    return Problem(409, "in-progress", "Request is in progress", detail, headers=(retry_after(seconds),))


def outcome_unknown() -> Problem:
    """409: the process that carried the request out died, and it cannot be told how far it came."""
    detail = (
        "The server that carried this request out ended before it could say how. It may or may not have taken "
        "effect: look, then send a new request under a new key if need be."
    )
    return Problem(409, "outcome-unknown", "Outcome of the request is unknown", detail)


def handler_failed() -> Problem:
    """500: the handler raised an exception before it answered."""
    detail = "The first request under this key failed without an answer. Use a new key to try again."
    return Problem(500, "handler-failed", "Request failed", detail)


def saga_forgotten(saga_id: str, status: str) -> Problem:
    """410: the saga that carried the request out is no longer kept; how it ended is."""
    detail = "The request was carried out by a saga that is no longer kept. Only how it ended is known."
    return Problem(410, "saga-forgotten", "Outcome is no longer kept", detail, _saga_members(saga_id, status, None))


def claim_lost() -> Problem:
    """409: the handler's claim ended while it ran (a frozen process, a storage that was away for too long)."""
    detail = "This server lost the right to carry the request out. Repeat it under the same key to learn its outcome."
    return Problem(409, "claim-lost", "Request was taken over", detail, headers=(retry_after(1),))


def body_too_large(most: int) -> Problem:
    """413: the body is longer than `most` bytes; nothing was claimed."""
    detail = f"A request under an idempotency key may have {most} bytes of body on this route."
    return Problem(413, "body-too-large", "Request body is too large", detail, {"limit": most})


def storage_unavailable(seconds: float) -> Problem:
    """503: the storage is away and this route is not served without it."""
    detail = "Whether this request was carried out before cannot be checked now, so it was not. Repeat it later."
    return Problem(503, "storage-unavailable", "Storage is unavailable", detail, headers=(retry_after(seconds),))


def encoding_not_acceptable() -> Problem:
    """406: the stored response is in an encoding which this repetition does not accept, and cannot be decoded."""
    detail = "The request was carried out; its response is kept in the encoding that the first request accepted."
    return Problem(406, "encoding-not-acceptable", "Stored response is not in an accepted encoding", detail)


def saga_compensated(saga_id: str, error: str | None = None) -> Problem:
    """409: the saga that carried the request out turned back, and everything was undone."""
    detail = "The work could not be completed. What had been done was undone. Use a new key to try again."
    return Problem(409, "saga-compensated", "Work was undone", detail, _saga_members(saga_id, "compensated", error))


def saga_failed(saga_id: str, error: str | None = None, open_items: Iterable[str] = ()) -> Problem:
    """500: the saga is parked, partly done: an operator decides."""
    detail = "The work could not be completed and not all of it could be undone. An operator has to look at it."
    members = {**_saga_members(saga_id, "failed", error), "open_items": list(open_items)}
    return Problem(500, "saga-failed", "Work is parked", detail, members)


def accepted_messages(
    saga_id: str | None, seconds: float, *, location: str | None = None, head: bool = False
) -> list[dict[str, Any]]:
    """202: the work goes on. Plain JSON, since it is no problem.

    Args:
        saga_id: The saga that carries the request out, if one does.
        seconds: Until it is worth a look.
        location: Where to look, as a URI reference; None: repeat the request.
        head: For a HEAD request, to which no body may be sent.
    """
    headers = [retry_after(seconds)]
    if location is not None:
        headers.append((b"location", location.encode("latin-1")))
    document = {"status": "in_progress"} if saga_id is None else {"saga_id": saga_id, "status": "in_progress"}
    return response_messages(202, b"application/json", encode(document), headers, head=head)


def _saga_members(saga_id: str, status: str, error: str | None) -> dict[str, Any]:
    members = {"saga_id": saga_id, "saga_status": status}
    return members if error is None else {**members, "error": error}
