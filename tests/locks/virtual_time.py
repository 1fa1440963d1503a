"""Runs a test's trio on a clock that jumps to whatever is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from trio.abc import Clock, Instrument
from trio.testing import MockClock


def in_virtual_time(
    main: Callable[[], Awaitable[Any]], *, clock: Clock | None = None, instruments: Sequence[Instrument] = ()
) -> Any:
    """As `trio.run`; for ``pytest.mark.trio(run=...)``, since fixtures need the clock as well."""
    return trio.run(main, clock=clock or MockClock(autojump_threshold=0), instruments=instruments)
