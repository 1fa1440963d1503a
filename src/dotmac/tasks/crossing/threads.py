"""Whether a trio run has a thread of its own because its host is no trio program."""

from __future__ import annotations

from contextvars import ContextVar

runs_beside_its_host: ContextVar[bool] = ContextVar("dotmac.tasks.crossing.runs_beside_its_host", default=False)
"""True in every task of such a run: asyncio is somebody else's there, and must be left as it is."""
