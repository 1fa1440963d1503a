"""One line that puts the middleware around a Starlette or FastAPI app."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from ..errors import InvalidInput
from ..manager import BackgroundOperationsManager
from .middleware import BackgroundOperationsMiddleware

if TYPE_CHECKING:
    from .asgi import Scope
    from .options import IdempotencyOptions
    from .routes import RouteRule
    from .sealing import ResponseCodec


class MiddlewareOptions(TypedDict, total=False):
    """The arguments of `BackgroundOperationsMiddleware` by name, for type checkers."""

    exempt_paths: Collection[str] | None
    idempotency_header: str
    cache_hit_header: str
    options: IdempotencyOptions | None
    routes: Sequence[RouteRule]
    identity: Callable[[Scope], Any]
    credentials: Collection[str] | Callable[[Scope], Any]
    session_cookies: Collection[str] | None
    codec: ResponseCodec | None


def add_background_operations_middleware(
    app: Any, manager: BackgroundOperationsManager | None = None, **options: Unpack[MiddlewareOptions]
) -> BackgroundOperationsManager:
    """Put a `BackgroundOperationsMiddleware` around the app, and give the manager that it works with.

    The manager starts and stops with the app. Register handlers with it, start sagas with it, hold locks with it.

    What replays and refusals have to pass too, such as a `CORSMiddleware`, must be further out: add it after this.

    Args:
        app: A Starlette or FastAPI app, or anything else with ``add_middleware``. A plain ASGI app is wrapped
            instead: ``app = BackgroundOperationsMiddleware(app, manager)``.
        manager: None: one with the storage that the environment names: ``REDIS_URL``, or else memory.
        **options: See `BackgroundOperationsMiddleware`.

    Raises:
        InvalidInput: The app has no ``add_middleware``, or an option makes no sense.
    """
    if not callable(getattr(app, "add_middleware", None)):
        raise InvalidInput(
            "app",
            f"a {type(app).__name__} has no add_middleware; wrap it: BackgroundOperationsMiddleware(app, manager)",
        )
    manager = manager if manager is not None else BackgroundOperationsManager()
    BackgroundOperationsMiddleware(app, manager, **options)  # frameworks build it late: a bad option is told here
    app.add_middleware(BackgroundOperationsMiddleware, manager=manager, **options)
    return manager
