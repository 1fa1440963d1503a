"""Which headers of a response are stored, and whether the stored body suits another request's Accept-Encoding. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from .problems import Header

# Of one connection (RFC 9110, section 7.6.1): servers write their own.
HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"alt-svc", b"http2-settings",
    }
)  # fmt: skip
# Of one receiver: another who repeats the request must not be logged in by it.
CREDENTIALS = frozenset(
    {
        b"set-cookie", b"set-cookie2", b"cookie", b"authorization", b"proxy-authorization",
        b"authentication-info", b"proxy-authentication-info", b"x-csrf-token", b"x-xsrf-token",
    }
)  # fmt: skip
# Of one exchange: when it was, how long it took, how it is called in the logs. The length is computed anew.
OF_THE_EXCHANGE = frozenset(
    {
        b"content-length", b"date", b"server", b"via", b"age", b"x-powered-by", b"server-timing", b"x-response-time",
        b"x-process-time", b"x-runtime", b"request-id", b"x-request-id", b"correlation-id", b"x-correlation-id",
        b"x-trace-id", b"x-amzn-requestid", b"x-amzn-trace-id", b"x-cloud-trace-context", b"traceparent",
        b"tracestate", b"traceresponse", b"b3",
    }
)  # fmt: skip
_NEVER = HOP_BY_HOP | CREDENTIALS | OF_THE_EXCHANGE
_NEVER_BY_PREFIX = (b"access-control-", b"ratelimit", b"x-ratelimit", b"x-rate-limit", b"x-b3-")


def storable_headers(headers: Iterable[Header], unstored: Iterable[bytes] = ()) -> tuple[Header, ...]:
    """The headers that a replay may have, names in lower case, in their order, repeats included.

    Args:
        headers: As the application sent them.
        unstored: Names of further headers to leave out.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    named = {token.strip().lower() for name, value in lowered if name == b"connection" for token in value.split(b",")}
    left_out = _NEVER | named | {name.lower() for name in unstored}
    return tuple(
        (name, value) for name, value in lowered if name not in left_out and not name.startswith(_NEVER_BY_PREFIX)
    )


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


_ALIASES = {b"x-gzip": b"gzip", b"x-compress": b"compress"}


def _weights(accept_encoding: bytes) -> dict[bytes, float]:
    weights: dict[bytes, float] = {}
    for item in accept_encoding.split(b","):
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
