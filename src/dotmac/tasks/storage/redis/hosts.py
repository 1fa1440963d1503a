"""Opens the asyncio loop where the options want it, or where it can be."""

from __future__ import annotations

import asyncio
import sys
import warnings
from contextlib import AbstractAsyncContextManager
from typing import Any

from dotmac.tasks.bridge.identity import runs_beside_its_host
from dotmac.tasks.errors import StorageMisconfigured

from .host import Host
from .host_in_thread import open_thread_host
from .host_in_trio import open_trio_asyncio_host
from .options import LoopHost

_NEW_EVENT_LOOP = asyncio.new_event_loop


def open_host(kind: LoopHost) -> AbstractAsyncContextManager[Host]:
    """Opens the asyncio loop for the time of a context, at the end of which no connection and no task is left.

    Raises:
        StorageMisconfigured: ``trio-asyncio`` was asked for and cannot be imported here.
    """
    # Importing trio-asyncio patches asyncio for the whole process. Where asyncio is the program's own, it is not done.
    if kind == "thread" or (kind == "auto" and runs_beside_its_host.get()):
        return open_thread_host()
    try:
        return open_trio_asyncio_host(_trio_asyncio().open_loop)
    except ImportError as error:
        if kind == "auto":
            return open_thread_host()
        raise StorageMisconfigured("trio-asyncio cannot be imported: install it, or set loop_host=thread") from error


def _trio_asyncio() -> Any:
    """The module, without the one patch that reaches loops which have nothing to do with it.

    It lets `asyncio.new_event_loop` make loops of its own, outside of trio too. These run in a trio task, so whoever
    asks where he is, is told trio: nothing that tells the two apart works in them, the manager included. A program can
    come to asyncio after a trio run, a test suite of both hosts say. Whoever imports it himself wants it as it is.
    """
    by_us = "trio_asyncio" not in sys.modules
    with warnings.catch_warnings():
        # On 3.12 and 3.13 it subclasses what asyncio deprecates; users who make warnings errors could not use it.
        warnings.simplefilter("ignore", DeprecationWarning)
        import trio_asyncio  # noqa: PLC0415 - optional: cannot be imported on every Python
    if by_us:
        asyncio.new_event_loop = asyncio.events.new_event_loop = _NEW_EVENT_LOOP
    return trio_asyncio
