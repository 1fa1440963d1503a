"""Whether a trio run has a thread of its own because its host is no trio program."""

from __future__ import annotations

import trio

runs_beside_its_host: trio.lowlevel.RunVar[bool] = trio.lowlevel.RunVar("runs_beside_its_host", default=False)
"""True in such a run: asyncio is somebody else's there, and must be left as it is.

Of the run and not of a context: a call that crosses over brings its caller's context along.
"""
