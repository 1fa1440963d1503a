"""Which headers of a response are stored, and which belong to one exchange or one receiver only. Pure."""

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
    left_out = {name.lower() for name in unstored}
    kept: list[Header] = []
    for given, value in headers:
        name = given.lower()
        if name == b"connection":
            left_out.update(token.strip().lower() for token in value.split(b","))
        elif name not in _NEVER and not name.startswith(_NEVER_BY_PREFIX):
            kept.append((name, value))
    return tuple([header for header in kept if header[0] not in left_out] if left_out else kept)
