"""Storage on Redis or Valkey. Needs the ``redis`` extra."""

from __future__ import annotations

try:
    from .storage import RedisStorage
except ModuleNotFoundError as error:  # the base install has neither redis-py nor hiredis
    raise ModuleNotFoundError(
        f"{error}; RedisStorage needs more packages: pip install 'dotmac-tasks[redis]'", name=error.name
    ) from error

__all__ = ["RedisStorage"]
