"""The one place where it is told what happens: hooks that users register, and that exporters stand on.

A hook is called as ``hook(subject, tenant_id)``, or as ``hook(subject, tenant_id, details)`` if it takes a third
positional argument. `subject` is the operation type, the workflow type, the lock's name or the storage verb;
`details` is a dict of what else is known (``saga_id``, ``step``, ``attempt``, ``seconds``, ``status``, ``error`` …).
Hooks are called in the runtime's own task: they must be quick and must not block. A hook that raises hurts
nobody; the first failure of each is logged with its traceback.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from .errors import InvalidInput

Hook = Callable[..., object]

POINTS = (
    "idempotency_key_created",
    "idempotency_key_hit",
    "idempotency_key_completed",
    "idempotency_key_failed",
    "saga_created",
    "saga_status_changed",
    "saga_step_started",
    "saga_step_completed",
    "saga_step_failed",
    "saga_step_retried",
    "saga_step_compensated",
    "lock_acquired",
    "lock_failed",
    "lock_lost",
    "storage_operation",
    "http_storage_failed",
)
"""Everything that is told; ``<point>_hook`` is the name to register a hook under."""

_log = logging.getLogger(__name__)
_SUBJECT_AND_TENANT = 2


class _Registered:
    """One hook, how many arguments it takes, and whether it failed before."""

    __slots__ = ("detailed", "failed", "hook")

    def __init__(self, hook: Hook, *, detailed: bool) -> None:
        self.hook = hook
        self.detailed = detailed
        self.failed = False


_hooks: dict[str, list[_Registered]] = {point: [] for point in POINTS}


def register_metrics_hooks(**hooks: Hook) -> Callable[[], None]:
    """Call these hooks from now on, beside those registered earlier.

    Args:
        **hooks: ``<point>_hook=callable`` for any of `POINTS`, such as ``saga_step_completed_hook``.

    Returns:
        A function that takes these hooks out again.

    Raises:
        InvalidInput: There is no such point, or the hook cannot be called with two or three arguments.
    """
    added: list[tuple[str, _Registered]] = []
    for name, hook in hooks.items():
        point = name.removesuffix("_hook")
        if point not in _hooks or not name.endswith("_hook"):
            known = ", ".join(f"{point}_hook" for point in POINTS)
            raise InvalidInput(name, f"there is no such hook; there are: {known}")
        added.append((point, _Registered(hook, detailed=_takes_details(name, hook))))
    for point, registered in added:
        _hooks[point].append(registered)

    def unregister() -> None:
        for point, registered in added:
            if registered in _hooks[point]:
                _hooks[point].remove(registered)

    return unregister


def listening() -> bool:
    """Whether anybody listens to anything: lets a caller skip telling at all."""
    return any(_hooks.values())


def wanted(point: str) -> bool:
    """Whether anybody listens: lets a caller skip gathering details."""
    return bool(_hooks[point])


def emit(point: str, subject: str, tenant_id: str, **details: Any) -> None:
    """Tell every hook of this point."""
    for registered in tuple(_hooks[point]):
        try:
            if registered.detailed:
                registered.hook(subject, tenant_id, dict(details))
            else:
                registered.hook(subject, tenant_id)
        except Exception:
            if not registered.failed:
                registered.failed = True
                _log.exception("a %s hook raised; its further failures are not logged", point)


def _takes_details(name: str, hook: Hook) -> bool:
    if not callable(hook):
        raise InvalidInput(name, f"must be callable, not {hook!r}")
    try:
        signature = inspect.signature(hook)
    except ValueError:  # some C callables tell no signature: they get what the plainest hook gets
        return False
    for count in (_SUBJECT_AND_TENANT + 1, _SUBJECT_AND_TENANT):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        return count > _SUBJECT_AND_TENANT
    raise InvalidInput(name, "must take (subject, tenant_id) or (subject, tenant_id, details)")
