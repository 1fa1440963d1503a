"""Opens the asyncio loop where the options want it, or where it can be."""

from __future__ import annotations

import warnings
from contextlib import AbstractAsyncContextManager

from dotmac.tasks.crossing.threads import runs_beside_its_host
from dotmac.tasks.errors import StorageMisconfigured

from .host import Host
from .host_in_thread import open_thread_host
from .host_in_trio import open_trio_asyncio_host
from .options import LoopHost


def open_host(kind: LoopHost) -> AbstractAsyncContextManager[Host]:
    """Opens the asyncio loop for the time of a context, at the end of which no connection and no task is left.

    Raises:
        StorageMisconfigured: ``trio-asyncio`` was asked for and cannot be imported here.
    """
    # Importing trio-asyncio changes `asyncio.new_event_loop` for the whole process: loops that the program makes
    # from then on would be trio-asyncio's as well. Where asyncio is the program's own, it is not imported.
    if kind == "thread" or (kind == "auto" and runs_beside_its_host.get()):
        return open_thread_host()
    try:
        with warnings.catch_warnings():
            # On 3.12 and 3.13 it subclasses what asyncio deprecates; users who make warnings errors could not use it.
            warnings.simplefilter("ignore", DeprecationWarning)
            import trio_asyncio  # noqa: PLC0415 - optional: cannot be imported on every Python, see above
    except ImportError as error:
        if kind == "auto":
            return open_thread_host()
        raise StorageMisconfigured("trio-asyncio cannot be imported: install it, or set loop_host=thread") from error
    return open_trio_asyncio_host(trio_asyncio.open_loop)
