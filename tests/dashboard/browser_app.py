"""The application that the browser's tests look at: `dotmac-tasks serve browser_app:manager`."""

from __future__ import annotations

from dashboard.stage import register
from dotmac.tasks import BackgroundOperationsManager, MemoryStorage

manager = BackgroundOperationsManager(storage=MemoryStorage(), drain_timeout=0.2)
register(manager)
