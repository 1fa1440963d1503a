"""The dashboard and the API of one manager, put together for `dotmac-tasks serve`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request

from ..manager import BackgroundOperationsManager
from .access import Access
from .app import Extension, create_app
from .callers import caller_of
from .dashboard.routes import dashboard_routes, login_page
from .dashboard.site import Site, Visitor
from .redaction import Redaction


def create_console(
    manager: BackgroundOperationsManager, access: Access, redaction: Redaction | None = None
) -> Starlette:
    """The whole service: API and dashboard.

    Args:
        manager: What is looked at and operated.
        access: Who may do what.
        redaction: Hides values on the pages, and in the API from callers who may only view; None: those of
            `DEFAULT_FIELDS`.
    """
    redaction = redaction or Redaction()
    site = Site(manager, visitor_of, redaction, streams=True)
    return create_app(
        manager,
        access=access,
        redaction=redaction,
        extension=Extension(dashboard_routes(site), login_page(site), [site.activity], [site.look_regularly]),
    )


def visitor_of(request: Request) -> Visitor | None:
    """Who looks at a page, as pages know visitors."""
    caller = caller_of(request)
    if caller is None:  # on a path that is open to everybody
        return None
    return Visitor(caller.name, caller.may_operate, caller.by_session)
