"""Storage on Redis or Valkey. Needs the ``redis`` extra."""

from __future__ import annotations

from ...extras import needs

with needs("RedisStorage", "redis"):
    from .storage import RedisStorage

__all__ = ["RedisStorage"]
