"""What stands for the user where no user is known: credential headers, cookies, the content of a session. Pure.

Two faults are possible. If too little counts, a client gets the response of another. If too much counts, a repetition
counts as another request and its effect happens twice. Credentials therefore count in the name of the record, since
an application names them. Cookies of unknown meaning count in the fingerprint: a repetition with other cookies is
refused, and neither fault happens. So do header fields that are named like a sender (``X-Client-Cert``), and
credentials that sign one request only (``Authorization: Digest``), which differ in each repetition.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from typing import Any

from .netstrings import netstrings

CREDENTIAL_HEADERS = (
    "Authorization",
    "Proxy-Authorization",
    "X-API-Key",
    "X-Api-Token",
    "Api-Key",
    "ApiKey",
    "X-Auth-Key",
    "X-Auth-Token",
    "X-Access-Token",
    "X-Session-Token",
    "X-Session-ID",
    "Private-Token",
    "Remote-User",
    "X-Remote-User",
    "X-Forwarded-User",
    "X-Auth-Request-User",
    "X-Forwarded-Email",
    "X-Auth-Request-Email",
    "X-Amzn-Oidc-Identity",
    "X-Goog-Authenticated-User-Id",
    "Cf-Access-Authenticated-User-Email",
    "X-Ms-Client-Principal-Id",
    "Client-Cert",
    "X-Forwarded-Client-Cert",
)
"""Header fields whose values stand for a user that is not known otherwise."""

_FIELDS = frozenset(header.lower().encode("ascii") for header in CREDENTIAL_HEADERS)
_NAME_DIGITS = 8
_DIGITS = 16  # 64 bits: a client that can choose a cookie with this digest could choose the user's own as well
_MOST_COOKIES = 60
_MOST_PAIRS = 1_000  # of one line; what follows counts as one value
_SESSION_COOKIE = b"session"  # the name that Starlette's SessionMiddleware gives its cookie
# Cookies of load balancers and of visit counters: they change at any response, and never name a user of the app.
_NO_USER = (
    b"awsalb", b"awselb", b"arraffinity", b"gclb", b"bigipserver", b"__cf_bm", b"_cfuvid",
    b"_ga", b"_gid", b"_gcl_", b"_fbp", b"_fbc", b"_hj", b"_pk_", b"__utm", b"ajs_anonymous_id",
)  # fmt: skip
# Words in the names of header fields that say something about the sender.
_SENDER_WORD = re.compile(
    rb"(?:\A|[-_])(?:users?|user-?id|user-?name|userinfo|login|email|member|customer|account|company|merchant|store-id|"
    rb"shop-id|workspace|tenant|org|organization|principal|subject|dn|identity|oidc|client-?id|client-?cert|cert|"
    rb"certificate|consumer|credentials?|auth|authorization|authenticated|assertion|tokens?|jwt|secret|session|"
    rb"sessionid|apikey|(?:api|access|subscription|functions)-key|act-as|behalf|sudo|impersonate)(?:\Z|[-_])"
)
# Such names that say nothing about the sender, or have another value in each request.
_NO_SENDER = re.compile(
    rb"\Asec-|\Ax-tenant-id\Z|user-agent|idempotency|csrf|xsrf|captcha|turnstile|nonce|timestamp|signature|[-_]date\Z"
)
# Schemes of the Authorization field that sign each request anew.
_SIGNED = re.compile(
    rb"\s*(?:digest|hawk|mac|signature|oauth\s[^\n]*oauth_nonce|[a-z0-9]+-hmac-sha\d+)\b", re.IGNORECASE
)
_AUTHORIZATIONS = frozenset({b"authorization", b"proxy-authorization"})
_CERTIFICATE = b"tls:client-cert"  # no header field has a colon in its name
_Line = tuple[bytes, bytes]


def certificate_lines(scope: Mapping[str, Any]) -> list[_Line]:
    """The client's certificate as a credential, where the server gives it: ASGI's extension ``tls``."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    named = tls.get("client_cert_name") or "".join(tls.get("client_cert_chain") or ())
    return [(_CERTIFICATE, str(named).encode("utf-8", "surrogatepass"))] if named else []


def credentials_digest(
    headers: Iterable[_Line],
    fields: Collection[bytes] = _FIELDS,
    cookies: Collection[bytes] = (),
) -> str | None:
    """A digest of the credentials that a request carries; None: it carries none.

    Of credentials that sign one request only, the scheme alone counts here, see `signature_digests`.

    Args:
        headers: Of the request, as ASGI has them.
        fields: Names of the header fields that are credentials, in lower case.
        cookies: Names of the cookies that are credentials.
    """
    lines = list(headers)
    proofs = [(line[0], b"signed") if _is_signed(line) else line for line in lines if _is_proof(line, fields)]
    if cookies:
        proofs += [(b"cookie:" + name, value) for name, value in _cookies(lines) if name in cookies]
    return sha256(netstrings(part for line in proofs for part in line)).hexdigest() if proofs else None


def cookie_digests(headers: Iterable[_Line], session: Any = None) -> tuple[str, ...]:
    """A digest of each cookie that may say something about the user, in one order; it begins with that of the name.

    Args:
        headers: Of the request, as ASGI has them.
        session: The session that a middleware further out has read from a cookie. Its content counts in place of a
            cookie named ``session``, whose value changes each time it is signed.
    """
    facts = [cookie for cookie in _cookies(headers) if not cookie[0].lower().startswith(_NO_USER)]
    if session and isinstance(session, Mapping):
        content = json.dumps(dict(session), sort_keys=True, default=repr, skipkeys=True).encode()
        facts = [cookie for cookie in facts if cookie[0] != _SESSION_COOKIE] + [(_SESSION_COOKIE + b"=", content)]
    return _digests(facts)


def signature_digests(headers: Iterable[_Line], fields: Collection[bytes] = _FIELDS) -> tuple[str, ...]:
    """Digests of the credentials that sign this request only, unless the request carries lasting ones too.

    Args:
        headers: Of the request, as ASGI has them.
        fields: Names of the header fields that are credentials, in lower case.
    """
    proofs = [line for line in headers if _is_proof(line, fields)]
    return _digests(proofs) if proofs and all(map(_is_signed, proofs)) else ()


def sender_digests(headers: Iterable[_Line]) -> tuple[str, ...]:
    """Digests of the header fields whose names say that their values are about the sender.

    Args:
        headers: Of the request, as ASGI has them.
    """
    return _digests([line for line in headers if _SENDER_WORD.search(line[0]) and not _NO_SENDER.search(line[0])])


def _is_proof(line: _Line, fields: Collection[bytes]) -> bool:
    return line[0] in fields or line[0] == _CERTIFICATE


def _is_signed(line: _Line) -> bool:
    return line[0] in _AUTHORIZATIONS and _SIGNED.match(line[1]) is not None


def _digests(facts: list[_Line]) -> tuple[str, ...]:
    digests = sorted({_digest(fact[:1], _NAME_DIGITS) + _digest(fact, _DIGITS) for fact in facts})
    if len(digests) > _MOST_COOKIES:  # more than any browser sends; together they take no more room than one
        return (sha256("".join(digests).encode("ascii")).hexdigest()[:_DIGITS],)
    return tuple(digests)


def given_cookies(headers: Iterable[_Line], session: Any = None) -> tuple[str, ...]:
    """The digests of the cookies that a response sets, as those of the requests that bring them back.

    Args:
        headers: Of the response, names in lower case.
        session: The session that a middleware further out will write to a cookie.
    """
    return cookie_digests(
        [(b"cookie", value.partition(b";")[0]) for name, value in headers if name == b"set-cookie"], session
    )


def with_cookies(fingerprint: str, cookies: Iterable[str]) -> str:
    """The fingerprint of a request with the digests of its cookies, see `is_same_sender`."""
    return ".".join((fingerprint, *cookies))


def is_same_sender(first: str, given: Collection[str], repetition: str) -> bool:
    """Whether a request repeats the first one with the cookies of it, as its response has changed them.

    Every cookie of the repetition must be known, and every one of the first request must be there or be replaced.

    Args:
        first: The fingerprint of the first request, with its cookies.
        given: The cookies that the first response has set.
        repetition: The fingerprint of the repetition, with its cookies.
    """
    fingerprint, *had = first.split(".")
    repeated, *sent = repetition.split(".")
    if fingerprint != repeated or not {*had, *given}.issuperset(sent):
        return False
    replaced = {fact[:_NAME_DIGITS] for fact in given if fact in sent}
    return all(fact in sent or fact[:_NAME_DIGITS] in replaced for fact in had)


def _digest(parts: Iterable[bytes], digits: int) -> str:
    return sha256(netstrings(parts)).hexdigest()[:digits]


def _cookies(headers: Iterable[_Line]) -> list[_Line]:
    """Names and values in one order; white space, quotes and empty pairs make no difference."""
    pairs = [
        pair.partition(b"=") for name, value in headers if name == b"cookie" for pair in value.split(b";", _MOST_PAIRS)
    ]
    named = ((name.strip(), value.strip().strip(b'"')) for name, equals, value in pairs if equals or name.strip())
    return sorted(named)
