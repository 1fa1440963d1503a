"""The service: a process one runs, looks at and operates. It reaches the system through the manager only."""

from __future__ import annotations

from ..extras import needs

with needs("The service", "service"):
    import jinja2  # noqa: F401 - so that what is missing is told here, whichever module comes first
    import starlette  # noqa: F401 - as above
