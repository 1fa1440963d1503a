"""Threads for files and digests of requests.

Threads of their own: an application's plain endpoints share anyio's default ones, and endpoints that hang must not
keep the bodies of other requests from being read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
from anyio.lowlevel import RunVar

_MOST = 40
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("dotmac.tasks.http.threads")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def in_thread(function: Callable[[Unpack[Ts]], T], *arguments: *Ts) -> T:
    """Call the function in a thread of the present event loop."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(_MOST)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, *arguments, limiter=limiter)
