"""The dashboard and the API of one manager, put together for `dotmac-tasks serve`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request

from ..manager import BackgroundOperationsManager
from ..observability.prometheus import PrometheusMetrics
from .access import Access
from .app import create_app
from .callers import caller_of
from .dashboard.routes import dashboard_routes
from .dashboard.site import Site, Visitor


def create_console(manager: BackgroundOperationsManager, access: Access) -> Starlette:
    """The whole service, and the metrics that it counts from now on.

    Args:
        manager: What is looked at and operated.
        access: Who may do what.
    """
    metrics = PrometheusMetrics()
    metrics.install()
    site = Site(manager, visitor_of)
    site.activity.install()
    return create_app(manager, access=access, pages=dashboard_routes(site), metrics=metrics)


def visitor_of(request: Request) -> Visitor:
    """Who looks at a page, as pages know visitors."""
    caller = caller_of(request)
    if caller is None:  # on a path that is open to everybody
        return Visitor("nobody", may_operate=False)
    return Visitor(caller.name, caller.may_operate, caller.by_session)
