"""The façade: everything a program does with background operations goes through one manager."""

from __future__ import annotations

from typing import Unpack, cast

from .bridge.blocking import BlockingManager
from .errors import InvalidInput
from .facade.claims import ClaimMethods
from .facade.handlers import HandlerMethods
from .facade.life import Lifecycle
from .facade.locks import LockMethods
from .facade.operations import OperationMethods
from .facade.sagas import SagaMethods
from .runtime.environment import SagaEnvironment
from .settings import SettingOptions, Settings
from .storage.protocol import StorageProtocol


class BackgroundOperationsManager(OperationMethods, SagaMethods, LockMethods, ClaimMethods):
    """Idempotent operations, sagas and locks, on one storage.

    Use it as ``async with manager:``, or call `start` and `stop`. Handlers can be registered before and after.
    Methods can be awaited under trio and under asyncio; `sync` has them for threads.
    Every method raises `NotStarted` while the manager is not running, and `StorageUnavailable` or
    `StorageRefused` when the storage cannot do its part.

    Args:
        storage: Where everything is kept; None: `RedisStorage` if ``REDIS_URL`` is set, else `MemoryStorage`.
        settings: All settings at once; None: from `**options`, the environment and the defaults.
        works: Whether sagas are run in this process. One that does not work looks, submits and steers: what is
            started or retried through it is run by other processes, whose handlers it need not know.
        **options: Single settings by name (see `Settings`), such as ``worker_lease=5.0``.

    Attributes:
        sync: The same methods, blocking, for threads without an event loop.
        in_memory_by_default: Whether neither a storage nor ``REDIS_URL`` was given, so that everything is in memory.

    Raises:
        InvalidInput: A setting makes no sense, or is given twice; the error names it.
    """

    def __init__(
        self,
        storage: StorageProtocol | None = None,
        *,
        settings: Settings | None = None,
        works: bool = True,
        **options: Unpack[SettingOptions],
    ) -> None:
        if settings is not None and options:
            raise InvalidInput(next(iter(options)), "give either settings or single settings by name, not both")
        self.settings = settings if settings is not None else Settings.load(**options)
        self.storage = _checked(storage) if storage is not None else _default_storage(self.settings)
        self.in_memory_by_default = storage is None and self.settings.redis_url is None
        HandlerMethods.__init__(self)
        Lifecycle.__init__(self, SagaEnvironment(self.storage, self.settings, self._handlers, works))
        self.sync = BlockingManager(self)


def _checked(storage: object) -> StorageProtocol:
    """The storage, if it is one. What is refused is not shown: a URL may hold a password."""
    if isinstance(storage, str | bytes):
        raise InvalidInput("storage", "is a URL; pass RedisStorage(url), or set REDIS_URL and leave it out")
    if isinstance(storage, type):
        raise InvalidInput("storage", f"is a class; pass an instance: {storage.__name__}()")
    missing = [name for name in ("opened", "watch", "now", "register_worker") if not hasattr(storage, name)]
    if missing:
        raise InvalidInput(
            "storage",
            f"must be a RedisStorage, a MemoryStorage or another StorageProtocol; a {type(storage).__name__} has no "
            f"{', '.join(missing)}",
        )
    return cast("StorageProtocol", storage)


def _default_storage(settings: Settings) -> StorageProtocol:
    if settings.redis_url is None:
        from .storage.memory import MemoryStorage  # noqa: PLC0415 - the other branch needs an extra

        return MemoryStorage()
    from .storage.redis import RedisStorage  # noqa: PLC0415 - needs the redis extra

    return RedisStorage(redis_url=settings.redis_url)
