"""Errors after which nobody knows whether a handler's effect happened: the request may have got through.

Time-outs and lost connections, whoever raises them: those of the clients that handlers use most are known by name, so
that none of them has to be installed, and a time-out of theirs is not taken for a refusal.
"""

from __future__ import annotations

from collections.abc import Iterator

import trio

from ..errors import LockLost, OutcomeUnknown
from .error_texts import repr_of

_NOBODYS = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)
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
    return any(_is_unknown(single, chosen) for single in singles(error))


def doubt_of(error: BaseException) -> OutcomeUnknown | None:
    """What stands for something that a handler let out and that is no `Exception`, such as a loop's cancellation.

    It cancels nothing where it arrives, and is no end of anything but the handler. None: it is, and has to pass.
    """
    if any(isinstance(single, _NOBODYS) for single in singles(error)):
        return None
    doubt = OutcomeUnknown(f"the handler let {repr_of(error)} out of its task")
    doubt.__cause__ = error
    return doubt


def singles(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, and in the groups in it; or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from singles(member)
    else:
        yield error


def _is_unknown(error: BaseException, chosen: tuple[type[Exception], ...] | None) -> bool:
    if chosen is not None:
        return isinstance(error, (*_ALWAYS, *chosen))
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return isinstance(error, _BY_DEFAULT) or not _BY_NAME.isdisjoint(names)
