"""The one place where it is told what happens: hooks that users register, and that exporters stand on.

A hook is called as ``hook(subject, tenant_id)``, or as ``hook(subject, tenant_id, details)`` if it takes a third
positional argument. `subject` is the operation type, the workflow type, the lock's name or the storage verb;
`details` is a dict of what else is known (``saga_id``, ``step``, ``attempt``, ``seconds``, ``status``, ``error`` …).
Hooks are called in the runtime's own task: they must be quick and must not block. A hook is a plain function: async
and generator functions are refused, and an awaitable that a hook returns counts as a failure. A hook that raises hurts
nobody; the first failure of each is logged with its traceback.

Two more kinds of hook stand beside the points, for what a point cannot do: one surrounds every call of a handler
(a span must be the current one while it runs), one adds strings to a new saga's metadata (a trace must go with it
to other processes).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .callables import close_unawaited, is_async, is_awaitable, refuse_generators
from .errors import InvalidInput
from .signals import came_by_signal

Hook = Callable[..., object]
AttemptHook = Callable[[Any], Callable[[BaseException | None], object]]
MetadataHook = Callable[[str, str, dict[str, Any]], Mapping[str, str]]

POINTS = (
    "idempotency_key_created",
    "idempotency_key_hit",
    "idempotency_key_completed",
    "idempotency_key_failed",
    "saga_created",
    "saga_status_changed",
    "saga_taken_over",
    "saga_handler_missing",
    "saga_step_started",
    "saga_step_completed",
    "saga_step_failed",
    "saga_step_retried",
    "saga_step_compensated",
    "lock_acquired",
    "lock_failed",
    "lock_lost",
    "storage_operation",
    "storage_data_lost",
    "storage_breaker_opened",
    "storage_breaker_closed",
    "http_storage_failed",
)
"""Everything that is told; ``<point>_hook`` is the name to register a hook under."""

_log = logging.getLogger(__name__)
_SUBJECT_AND_TENANT = 2


class _Registered:
    """One hook, how many arguments it takes, and whether it failed before."""

    __slots__ = ("detailed", "failed", "hook")

    def __init__(self, hook: Callable[..., Any], *, detailed: bool) -> None:
        self.hook = hook
        self.detailed = detailed
        self.failed = False


AROUND_ATTEMPTS, NEW_METADATA = "around_attempts", "new_metadata"
_hooks: dict[str, list[_Registered]] = {point: [] for point in (*POINTS, AROUND_ATTEMPTS, NEW_METADATA)}
_registered: list[_Registered] = []  # at whichever point
_NOTHING: AbstractContextManager[None] = nullcontext()


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
        if point not in POINTS or not name.endswith("_hook"):
            known = ", ".join(f"{point}_hook" for point in POINTS)
            raise InvalidInput(name, f"there is no such hook; there are: {known}")
        _check_plain(name, hook)
        added.append((point, _Registered(hook, detailed=_takes_details(name, hook))))
    return _add(added)


def register_attempt_hook(hook: AttemptHook) -> Callable[[], None]:
    """Surround every call of a handler, in the handler's own task and context.

    Args:
        hook: Called with the `HandlerContext` right before the handler; gives a function that is called right after
            it with what the handler raised (`trio.Cancelled` if it was cut off), or None.

    Returns:
        A function that takes the hook out again.

    Raises:
        InvalidInput: It is not callable, or an async or generator function.
    """
    _check_plain("hook", hook)
    return _add([(AROUND_ATTEMPTS, _Registered(hook, detailed=False))])


def register_metadata_hook(hook: MetadataHook) -> Callable[[], None]:
    """Add strings to the metadata of every saga that this process creates.

    Args:
        hook: Called in the creator's task as ``hook(workflow_type, tenant_id, details)`` with ``saga_id`` and the
            caller's own ``metadata``; what it gives is stored with the saga, over the caller's own.

    Returns:
        A function that takes the hook out again.

    Raises:
        InvalidInput: It is not callable, or an async or generator function.
    """
    _check_plain("hook", hook)
    return _add([(NEW_METADATA, _Registered(hook, detailed=True))])


def _add(added: list[tuple[str, _Registered]]) -> Callable[[], None]:
    for point, registered in added:
        _hooks[point].append(registered)
        _registered.append(registered)

    def unregister() -> None:
        for point, registered in added:
            if registered in _hooks[point]:
                _hooks[point].remove(registered)
                _registered.remove(registered)

    return unregister


def listening() -> bool:
    """Whether anybody listens to anything: lets a caller skip telling at all."""
    return bool(_registered)


def wanted(point: str) -> bool:
    """Whether anybody listens: lets a caller skip gathering details."""
    return bool(_hooks[point])


def emit(point: str, subject: str, tenant_id: str, **details: Any) -> None:
    """Tell every hook of this point."""
    for registered in tuple(_hooks[point]):
        try:
            if registered.detailed:
                _refuse_awaitable(registered.hook(subject, tenant_id, dict(details)))
            else:
                _refuse_awaitable(registered.hook(subject, tenant_id))
        except BaseException as error:  # see `_log_first`
            _log_first(point, registered, error)


def around_attempt(context: object) -> AbstractContextManager[None]:
    """What to enter while a handler runs with this context."""
    return _surrounded(context) if _hooks[AROUND_ATTEMPTS] else _NOTHING


@contextmanager
def _surrounded(context: object) -> Iterator[None]:
    endings: list[tuple[_Registered, Any]] = []
    for registered in tuple(_hooks[AROUND_ATTEMPTS]):
        try:
            ending = registered.hook(context)
            _refuse_awaitable(ending)
            endings.append((registered, ending))
        except BaseException as error:  # see `_log_first`
            _log_first(AROUND_ATTEMPTS, registered, error)
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        for registered, ending in reversed(endings):
            try:
                _refuse_awaitable(ending(failure))
            except BaseException as error:  # see `_log_first`
                _log_first(AROUND_ATTEMPTS, registered, error)


def added_metadata(workflow_type: str, tenant_id: str, **details: Any) -> dict[str, str]:
    """What hooks add to the metadata of a new saga."""
    added: dict[str, str] = {}
    for registered in tuple(_hooks[NEW_METADATA]):
        try:
            given = registered.hook(workflow_type, tenant_id, details)
            _refuse_awaitable(given)
            added |= {str(key): str(value) for key, value in given.items()}
        except BaseException as error:  # see `_log_first`
            _log_first(NEW_METADATA, registered, error)
    return added


def _log_first(point: str, registered: _Registered, error: BaseException) -> None:
    """Log the first failure of a hook, whatever it raised; an interruption by a signal passes."""
    if came_by_signal(error):
        raise error
    if not registered.failed:
        registered.failed = True
        _log.exception("a hook for %s raised; its further failures are not logged", point)


def _refuse_awaitable(given: object) -> None:
    """Raise where a hook hands out what nothing would await."""
    if given is not None and is_awaitable(given):
        close_unawaited(given)
        raise TypeError("the hook returned an awaitable, which is never awaited; hooks are plain functions")


def _check_plain(name: str, hook: Hook) -> None:
    if not callable(hook):
        raise InvalidInput(name, f"must be callable, not {hook!r}")
    refuse_generators(name, hook)
    if is_async(hook):
        raise InvalidInput(name, "must be a plain function: hooks are called in the runtime's own task, not awaited")


def _takes_details(name: str, hook: Hook) -> bool:
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
