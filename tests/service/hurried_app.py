"""The application of `shop_app` in a service that gives a request body one second."""

from shop_app import manager  # type: ignore[import-not-found]  # found by the service process, whose path it is on

from dotmac.tasks.service import unread

unread.BODY_SECONDS = 1.0

__all__ = ["manager"]
