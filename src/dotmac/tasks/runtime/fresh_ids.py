"""Ids that tell one entry of a journal, or one claim, from every other: random once per process, counted from there.

They are made several times per saga and once per operation, which is what makes a counter worth having beside `uuid4`.
"""

from __future__ import annotations

import itertools
import os
import secrets


class _Ids:
    """The process's own prefix, and how many ids it made."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._prefix = secrets.token_hex(8)
        self._count = itertools.count()

    def fresh(self) -> str:
        """An id that nobody else makes."""
        return f"{self._prefix}{next(self._count):x}"


_ids = _Ids()
os.register_at_fork(after_in_child=_ids.renew)  # a forked child would go on counting where its parent does
fresh_id = _ids.fresh
