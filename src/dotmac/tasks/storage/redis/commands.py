"""From a command as callers write it to bytes of the protocol, and which commands a shared connection cannot carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis

from dotmac.tasks.errors import InvalidInput

Argument = bytes | str | int | float

#: Packs a command; raises TypeError for what is not bytes, text or a number. (hiredis types it for one item only.)
pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)

#: What changes the state of the connection that all callers share, answers more or less than once, or blocks it.
_NOT_HERE = frozenset(
    b"ASKING AUTH BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN DISCARD EXEC HELLO MONITOR MULTI "
    b"PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT READONLY READWRITE RESET SELECT SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC "
    b"UNSUBSCRIBE UNWATCH WATCH".split()
)
_NOT_AS_CLIENT = frozenset((b"REPLY", b"TRACKING", b"CACHING"))


def as_bytes(text: bytes | str) -> bytes:
    """Returns a key or a word as it goes over the wire."""
    return text if isinstance(text, bytes) else text.encode()


def name_of(command: Sequence[Argument]) -> str:
    """Returns the command's name, for messages."""
    name = command[0]
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def pack_checked(command: tuple[Argument, ...]) -> bytes:
    """Packs a command that a caller made up.

    Raises:
        InvalidInput: It is empty, has an argument that is not bytes, text or a number, or would disturb the
            other callers of the connection.
    """
    try:
        word = as_bytes(cast("bytes | str", command[0])).upper()
        disturbs = word in _NOT_HERE or (word == b"CLIENT" and _refuses_client(command))
        packed = pack(command)
    except (TypeError, AttributeError, IndexError):
        raise _refusal(command) from None
    if disturbs:
        raise InvalidInput("command", f"{name_of(command)} cannot be sent on the connection that all callers share")
    return packed


def pack_arguments(command: tuple[Argument, ...]) -> bytes:
    """Packs a command whose name is ours and whose arguments are a caller's. Raises InvalidInput for their types."""
    try:
        return pack(command)
    except TypeError:
        raise _refusal(command) from None


def _refuses_client(command: tuple[Argument, ...]) -> bool:
    return len(command) > 1 and as_bytes(cast("bytes | str", command[1])).upper() in _NOT_AS_CLIENT


def _refusal(command: tuple[Argument, ...]) -> InvalidInput:
    for position, argument in enumerate(command):
        if isinstance(argument, bool) or not isinstance(argument, bytes | str | int | float):
            return InvalidInput(f"command[{position}]", f"is {type(argument).__name__}, not bytes, text or a number")
    return InvalidInput("command", "begins with the name of a command")
