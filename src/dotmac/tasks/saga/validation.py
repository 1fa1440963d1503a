"""From what a caller passed to a definition that can run: everything that can be refused is refused here, once.

Each error names the field by its path (``steps[1].retry.max_retries``) and says what would be accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec

from ..bounds import MAX_SECONDS, check_encodable
from ..errors import InvalidInput, UnknownOperation
from ..idempotency import check_name
from ..jsonvalue import check_json, encode
from ..models import SagaStep, StepKind
from ..retry import COMPENSATION_RETRY, RetryPolicy
from .definition import SagaDefinition, StepDefinition
from .lock_names import check_lock
from .references import EXPRESSION_MARK, LITERAL, REMEDY, find_references

_RETRY = RetryPolicy()
MAX_STEPS = 1000
MAX_PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class KnownHandlers:
    """Which operations and compensations can be run; None accepts every name (a process that only submits)."""

    operations: Container[str] | None
    compensations: Container[str] | None


class _StepInput(msgspec.Struct, forbid_unknown_fields=True):
    """The fields a step may have, as callers write them."""

    name: str
    operation: str
    parameters: dict[str, Any] | None = None
    kind: StepKind = StepKind.COMPENSATABLE
    compensation_operation: str | None = None
    compensation_parameters: dict[str, Any] | None = None
    max_retries: int | None = None
    retry: RetryPolicy | None = None
    compensation_retry: RetryPolicy | None = None
    timeout_seconds: float | None = None
    compensation_timeout_seconds: float | None = None
    lock: str | None = None


# What a caller sets in a `SagaStep`. Its other fields say how a step stands, and have no meaning for a new one.
_STEP_VIEW_FIELDS = tuple(
    name for name in _StepInput.__struct_fields__ if name in {each.name for each in fields(SagaStep)}
)


def check_definition(definition: SagaDefinition) -> None:
    """Refuse a saga whose head cannot be stored; its steps were checked by `parse_steps`.

    Raises:
        InvalidInput: Naming the field.
    """
    check_name("tenant_id", definition.tenant_id)
    check_name("workflow_type", definition.workflow_type)
    _check_timeout("timeout_seconds", definition.timeout_seconds)
    if type(definition.priority) is not int or abs(definition.priority) > MAX_PRIORITY:
        limits = f"-{MAX_PRIORITY} to {MAX_PRIORITY}"
        raise InvalidInput("priority", f"must be an integer from {limits}, not {definition.priority!r}")
    if not isinstance(definition.metadata, dict):
        raise InvalidInput("metadata", f"must be a dict of strings, not {type(definition.metadata).__name__}")
    for key, value in definition.metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidInput(f"metadata.{key}", "keys and values must be strings")
        check_encodable("metadata", key)
        check_encodable(f"metadata.{key}", value)


def parse_steps(steps: Any, known: KnownHandlers) -> tuple[StepDefinition, ...]:
    """The steps of a saga from the mappings that a caller passed.

    Raises:
        InvalidInput: A field is missing, unknown or makes no sense.
        UnknownOperation: A handler is not registered.
    """
    if type(steps) is not list and (isinstance(steps, str | bytes | Mapping) or not isinstance(steps, Sequence)):
        raise InvalidInput("steps", "must be a list of mappings or of SagaStep objects")
    if not 0 < len(steps) <= MAX_STEPS:
        raise InvalidInput("steps", f"must hold 1 to {MAX_STEPS} steps, not {len(steps)}")
    parsed: list[StepDefinition] = []
    names: set[str] = set()
    after_pivot = False
    for index, step in enumerate(steps):
        field = f"steps[{index}]"
        definition = _parse_step(step, field)
        if definition.name in names:
            raise InvalidInput(f"{field}.name", f"the name {definition.name!r} is used by an earlier step")
        _check_handlers(definition, field, known)
        if _mentions_expression(definition):
            _check_references(definition, field, names)
        if after_pivot or definition.kind is not StepKind.COMPENSATABLE:
            _check_order(definition, field, after_pivot=after_pivot)
            after_pivot = True
        if definition.lock is not None:
            check_lock(f"{field}.lock", definition.lock, definition.parameters)
        names.add(definition.name)
        parsed.append(definition)
    return tuple(parsed)


def _parse_step(step: Any, field: str) -> StepDefinition:
    if isinstance(step, StepDefinition):
        step = {name: getattr(step, name) for name in step.__struct_fields__}
    elif isinstance(step, SagaStep):
        step = {name: getattr(step, name) for name in _STEP_VIEW_FIELDS}
    if type(step) is not dict and not isinstance(step, Mapping):  # the first is true of nearly all, and much cheaper
        raise InvalidInput(field, f"must be a mapping or a SagaStep, not {type(step).__name__}")
    # Checked before the conversion: it would turn a date or a set into JSON without a word.
    for name, check in _CHECKED_AS_GIVEN:
        if name in step and step[name] is not None:
            check(step[name], f"{field}.{name}")
    try:
        given = msgspec.convert(step if type(step) is dict else dict(step), _StepInput)
    except msgspec.ValidationError as error:
        raise _as_invalid(error, field) from error
    except UnicodeEncodeError as error:
        raise InvalidInput(field, "holds half a surrogate pair, which is no character") from error
    _check_step_name(f"{field}.name", given.name)
    check_name(f"{field}.operation", given.operation)
    _check_timeout(f"{field}.timeout_seconds", given.timeout_seconds)
    _check_timeout(f"{field}.compensation_timeout_seconds", given.compensation_timeout_seconds)
    return StepDefinition(
        name=given.name,
        operation=given.operation,
        parameters=given.parameters or {},
        kind=given.kind,
        compensation_operation=given.compensation_operation,
        compensation_parameters=given.compensation_parameters or {},
        retry=_retry(given, field),
        compensation_retry=COMPENSATION_RETRY
        if given.compensation_retry is None
        else _checked_policy(given.compensation_retry, f"{field}.compensation_retry"),
        timeout_seconds=given.timeout_seconds,
        compensation_timeout_seconds=given.compensation_timeout_seconds,
        lock=given.lock,
    )


def _as_invalid(error: msgspec.ValidationError, field: str) -> InvalidInput:
    reason, _, path = str(error).partition(" - at `$")
    unknown = re.search(r"unknown field `(.*)`", reason)
    if unknown:
        allowed = ", ".join(_StepInput.__struct_fields__)
        return InvalidInput(f"{field}{path.rstrip('`')}.{unknown[1]}", f"there is no such field; a step has: {allowed}")
    missing = re.search(r"missing required field `(.*)`", reason)
    if missing:
        return InvalidInput(f"{field}{path.rstrip('`')}.{missing[1]}", "is required")
    if reason.startswith("Invalid enum value"):  # the only one is the kind
        reason = f"{reason.replace('Invalid enum value', 'there is no kind')}; there are: {', '.join(StepKind)}"
    return InvalidInput(f"{field}{path.rstrip('`')}", reason[0].lower() + reason[1:])


def _retry(given: _StepInput, field: str) -> RetryPolicy:
    if given.max_retries is not None and given.retry is not None:
        raise InvalidInput(f"{field}.max_retries", "give either max_retries or retry, not both")
    if given.retry is not None:
        return _checked_policy(given.retry, f"{field}.retry")
    if given.max_retries is None:
        return _RETRY
    return _checked_policy(RetryPolicy(max_retries=given.max_retries), field)


def _check_policy_fields(policy: Any, field: str) -> None:
    # Not left to the codec: as stored, a policy may have fields that a newer version added.
    if isinstance(policy, Mapping):
        for name in policy:
            if name not in RetryPolicy.__struct_fields__:
                allowed = ", ".join(RetryPolicy.__struct_fields__)
                raise InvalidInput(f"{field}.{name}", f"there is no such field; a retry policy has: {allowed}")


def _checked_policy(policy: RetryPolicy, field: str) -> RetryPolicy:
    problem = policy.problem()
    if problem:
        raise InvalidInput(f"{field}.{problem[0]}", problem[1])
    return policy


def _check_timeout(field: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_SECONDS:
        raise InvalidInput(field, f"must be None or seconds, more than 0, at most {MAX_SECONDS:.0e}; not {value!r:.80}")


def _check_step_name(field: str, name: str) -> None:
    check_name(field, name)
    if ".result" in name:
        raise InvalidInput(field, "must not contain '.result', which ends a step's name in a $ref")


def _check_handlers(step: StepDefinition, field: str, known: KnownHandlers) -> None:
    if known.operations is not None and step.operation not in known.operations:
        raise UnknownOperation(
            f"{field}.operation",
            f"no handler is registered for {step.operation!r}; call register_operation_handler first",
        )
    undo = step.compensation_operation
    if undo is None:
        if step.compensation_parameters:
            raise InvalidInput(f"{field}.compensation_parameters", "there is no compensation_operation to take them")
        return
    check_name(f"{field}.compensation_operation", undo)
    if step.kind is not StepKind.COMPENSATABLE:
        raise InvalidInput(f"{field}.compensation_operation", f"a {step.kind} step is never undone; leave it out")
    if known.compensations is not None and undo not in known.compensations:
        raise UnknownOperation(
            f"{field}.compensation_operation",
            f"no handler is registered for {undo!r}; call register_compensation_handler first",
        )


def _mentions_expression(step: StepDefinition) -> bool:
    """Whether the step can hold an expression: a search in its JSON is ten times as fast as a walk through it."""
    return EXPRESSION_MARK in encode((step.parameters, step.compensation_parameters))


def _check_references(step: StepDefinition, field: str, earlier: set[str]) -> None:
    for name in ("parameters", "compensation_parameters"):
        whole = getattr(step, name).get(LITERAL, {})
        if type(whole) is not dict:
            raise InvalidInput(f"{field}.{name}", "a $literal in place of all parameters must hold an object")
    for path, reference in find_references(step.parameters, f"{field}.parameters"):
        if reference.step not in earlier:
            raise InvalidInput(path, f"the $ref {reference.text!r} names no earlier step; {REMEDY}")
    for path, reference in find_references(step.compensation_parameters, f"{field}.compensation_parameters"):
        if reference.step not in earlier and reference.step != step.name:
            raise InvalidInput(
                path, f"the $ref {reference.text!r} names neither this step nor an earlier one; {REMEDY}"
            )


def _check_order(step: StepDefinition, field: str, *, after_pivot: bool) -> None:
    if after_pivot and step.kind is not StepKind.RETRIABLE:
        raise InvalidInput(f"{field}.kind", "only retriable steps may follow the pivot")
    if not after_pivot and step.kind is StepKind.RETRIABLE:
        raise InvalidInput(f"{field}.kind", "a retriable step comes after a pivot; there is none before this one")


_CHECKED_AS_GIVEN: tuple[tuple[str, Callable[[Any, str], None]], ...] = (
    ("parameters", check_json),
    ("compensation_parameters", check_json),
    ("retry", _check_policy_fields),
    ("compensation_retry", _check_policy_fields),
)
