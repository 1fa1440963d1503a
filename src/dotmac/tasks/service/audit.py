"""What operators do to sagas: done, written into the saga's history and logged, whoever asks and by whichever way.

The note is written before the deed, so that no deed is without one; if the deed is refused, a second note says so.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import DotmacTasksError
from ..manager import BackgroundOperationsManager

_log = logging.getLogger("dotmac.tasks.audit")


async def cancel(manager: BackgroundOperationsManager, saga_id: str, who: str, reason: str) -> None:
    """Ask a saga to turn back. Raises as `BackgroundOperationsManager.cancel_saga` does."""
    await _audited(manager, saga_id, "operator_cancel", who, reason, lambda: manager.cancel_saga(saga_id, reason))


async def retry(
    manager: BackgroundOperationsManager, saga_id: str, who: str, reason: str, from_step: str | None = None
) -> None:
    """Let a parked saga go on. Raises as `BackgroundOperationsManager.retry_saga` does."""
    chosen = {} if from_step is None else {"from_step": from_step}

    async def do() -> None:
        await manager.retry_saga(saga_id, reason, from_step=from_step)

    await _audited(manager, saga_id, "operator_retry", who, reason, do, **chosen)


async def _audited(
    manager: BackgroundOperationsManager,
    saga_id: str,
    action: str,
    who: str,
    reason: str,
    do: Callable[[], Awaitable[Any]],
    **details: str,
) -> None:
    await manager.add_saga_note(saga_id, action, {"who": who, "reason": reason, **details})
    fields = {"saga_id": saga_id, "who": who, "reason": reason, **details}
    _log.info("%s: %s of saga %s (%s)", who, action, saga_id, reason or "no reason given", extra=fields)
    try:
        await do()
    except DotmacTasksError as error:
        _log.warning("%s: %s of saga %s was refused: %s", who, action, saga_id, error, extra=fields)
        await manager.add_saga_note(saga_id, f"{action}_refused", {"who": who, "problem": str(error)})
        raise
