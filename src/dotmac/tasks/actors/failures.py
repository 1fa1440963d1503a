"""Telling a failure from what merely passes through a task.

A supervisor reacts to failures (`Exception`). It must never react to `trio.Cancelled`, `KeyboardInterrupt` or
`SystemExit`: those belong to whoever is further out. In an exception group both can come at once, so a group has
to be split before anyone decides anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

_logger = logging.getLogger("dotmac.tasks.actors")

Report: TypeAlias = Callable[[str, Exception], None]
"""Called with the name of a child and its failure, once at most (see `Supervisor`). It must neither raise nor block."""


def split_failure(error: BaseException) -> tuple[Exception | None, BaseException | None]:
    """Split what a task ended with into the failure and what has to be raised on.

    Returns:
        The `Exception` (or group of them) in it, and the rest: `Cancelled`, `KeyboardInterrupt`, `SystemExit` or a
        group of such. Where the whole is one or the other, it is returned as it is.
    """
    if isinstance(error, Exception):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    passing, failure = error.split(_is_passing)
    return (failure, passing) if isinstance(failure, Exception) else (None, error)


def _is_passing(error: BaseException) -> bool:
    # `split` asks about whole groups first; a mixed group is itself no Exception, and yet must not match whole.
    return not isinstance(error, Exception | BaseExceptionGroup)


def log_failure(name: str, error: Exception) -> None:
    """Log the failure of the child `name` at level ERROR to the logger ``dotmac.tasks.actors``."""
    _logger.error("%s failed", name, exc_info=error)
