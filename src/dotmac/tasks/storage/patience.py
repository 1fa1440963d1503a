"""Which callers wait for a storage that is away, and which fail at once.

A request has a client that waits, so its calls fail at once while the storage is known to be away. Background work
has none: its calls stay queued until their deadline, so they reach the storage in the moment of its return.
"""

from __future__ import annotations

from contextvars import ContextVar

is_patient: ContextVar[bool] = ContextVar("dotmac.tasks.is_patient", default=False)
"""True in the tasks of the runtime, and in the handlers that they run."""
