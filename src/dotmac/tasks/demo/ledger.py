"""The outside world of the demo: a service that honours idempotency tokens, with its book in a file.

The file stands for what a payment or mail provider keeps: it outlives the runtime that calls it, and every
process of the demo sees the same one. From it the summary counts what really happened, not what somebody believes
to have done.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One request that reached the service.

    Attributes:
        token: What the caller sent as its idempotency token.
        effect: What was asked for, such as ``charge_card``.
        performed: Whether the effect was done now; False: the token was known, so nothing was done again.
        fence: Of the attempt that asked.
    """

    token: str
    effect: str
    performed: bool
    fence: int


_entry = msgspec.json.Decoder(Entry).decode
_line = msgspec.json.Encoder().encode


class Ledger:
    """A service that does each effect once per token.

    Args:
        path: The book; created at the first request.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def request(self, effect: str, token: str, fence: int) -> Entry:
        """Do the effect unless this token was seen before. Either way the request is written down.

        It is one short write under a file lock, so two processes cannot both be the first with a token, and a
        killed process leaves either a whole line or none.
        """
        with self.path.open("a+b", buffering=0) as book:
            fcntl.flock(book, fcntl.LOCK_EX)
            book.seek(0)
            known = {_entry(line).token for line in book.readlines()}
            entry = Entry(token, effect, self.is_new(token, known), fence)
            book.write(_line(entry) + b"\n")
        return entry

    def is_new(self, token: str, known: set[str]) -> bool:
        """The rule of the service: a token counts once."""
        return token not in known

    def entries(self, saga_id: str) -> list[Entry]:
        """All requests of one saga, oldest first: its tokens begin with its id."""
        if not self.path.exists():
            return []
        entries = [_entry(line) for line in self.path.read_bytes().splitlines()]
        return [entry for entry in entries if entry.token.startswith(f"{saga_id}:")]
