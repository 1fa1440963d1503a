"""Errors after which nobody knows whether a handler's effect happened: the request may have got through.

Time-outs and lost connections, whoever raises them: those of the clients that handlers use most are known by name, so
that none of them has to be installed, and a time-out of theirs is not taken for a refusal.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from ..errors import LockLost, OutcomeUnknown

_ALWAYS = (OutcomeUnknown, LockLost)
_BY_DEFAULT = (*_ALWAYS, TimeoutError, ConnectionError, trio.TooSlowError, trio.BrokenResourceError)
_BY_NAME = frozenset({
    "aiohttp.client_exceptions.ClientConnectionError",
    "aiohttp.client_exceptions.ClientPayloadError",
    "anyio.BrokenResourceError",
    "anyio.EndOfStream",
    "asyncio.exceptions.IncompleteReadError",
    "http.client.IncompleteRead",
    "httpcore.NetworkError",
    "httpcore.ProtocolError",
    "httpcore.TimeoutException",
    "httpx.TransportError",
    "redis.exceptions.ConnectionError",
    "redis.exceptions.TimeoutError",
    "requests.exceptions.ChunkedEncodingError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
    "urllib3.exceptions.MaxRetryError",
    "urllib3.exceptions.ProtocolError",
    "urllib3.exceptions.TimeoutError",
})  # fmt: skip


def leaves_unknown(error: BaseException, chosen: tuple[type[Exception], ...] | None) -> bool:
    """Whether this error of a handler leaves open if its effect happened; a group does if any of its members does.

    Args:
        error: What it raised.
        chosen: The errors that do, beside `OutcomeUnknown` and `LockLost`; None: time-outs and lost connections.
    """
    return any(class_leaves_unknown(type(single), chosen) for single in singles(error))


def class_leaves_unknown(kind: type[BaseException], chosen: tuple[type[Exception], ...] | None) -> bool:
    """The same of the class of one error."""
    if chosen is not None:
        return issubclass(kind, (*_ALWAYS, *chosen))
    names = (f"{each.__module__}.{each.__qualname__}" for each in kind.__mro__)
    return issubclass(kind, _BY_DEFAULT) or not _BY_NAME.isdisjoint(names)


def singles(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, and in the groups in it, in order; or the error itself.

    Groups can be nested deeper than calls can.
    """
    left = [error]
    while left:
        each = left.pop()
        if issubclass(type(each), BaseExceptionGroup):  # by its real class: the class of a broken error raises
            left += reversed(each.exceptions)  # type: ignore[attr-defined]  # as above
        else:
            yield each
