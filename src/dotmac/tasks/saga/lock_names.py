"""The lock a step is run under: a template such as ``invoice:{parameters.invoice_id}``, and the name it stands for.

Pure. The template is checked when the saga is created; the name is made just before the handler is invoked, from the
step's own parameters with their references resolved, and is the same when the step is undone.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import InvalidInput
from ..idempotency import check_name

_FIELD = re.compile(r"\{([^{}]*)\}")
_PARAMETERS = "parameters."
_REFERENCE = "$ref"


def check_lock(field: str, template: str, parameters: dict[str, Any]) -> None:
    """Refuse a template that no name can be made of.

    Args:
        field: Path of the template, for the error.
        template: What to check.
        parameters: Of the step; values behind a ``$ref`` are not known yet and not looked at.

    Raises:
        InvalidInput: It names something else than ``{parameters.<path>}``, ``{tenant_id}`` or ``{saga_id}``, or a
            parameter that is not there or is neither text nor an integer.
    """
    check_name(field, template)
    if "{" in (rest := _FIELD.sub("", template)) or "}" in rest:
        raise InvalidInput(field, "has a brace without its other half")
    known = True
    for match in _FIELD.finditer(template):
        name = match[1]
        if name in ("tenant_id", "saga_id"):
            continue
        if not name.startswith(_PARAMETERS):
            allowed = "{parameters.<path>}, {tenant_id} and {saga_id}"
            raise InvalidInput(field, f"{{{name}}} cannot be filled in; there are {allowed}")
        value = _walk(name, parameters, field)
        if isinstance(value, dict) and _REFERENCE in value:
            known = False
        else:
            _as_text(name, value, field)
    if known:  # the whole name can be looked at, but for what the manager fills in, which is a name itself
        lock_name(template, parameters, "t", "s", field)


def lock_name(template: str, parameters: dict[str, Any], tenant_id: str, saga_id: str, field: str = "lock") -> str:
    """The name that the template stands for. `field` names it in the error.

    Raises:
        InvalidInput: A parameter, come from an earlier step's result, is not there or cannot be part of a name.
    """

    def fill(match: re.Match[str]) -> str:
        known = {"tenant_id": tenant_id, "saga_id": saga_id}.get(match[1])
        return _as_text(match[1], _walk(match[1], parameters, field), field) if known is None else known

    name = _FIELD.sub(fill, template)
    check_name(field, name)
    return name


def _walk(name: str, parameters: dict[str, Any], field: str) -> Any:
    value: Any = parameters
    for part in name.removeprefix(_PARAMETERS).split("."):
        if isinstance(value, dict) and _REFERENCE in value:
            break
        if not isinstance(value, dict) or part not in value:
            raise InvalidInput(field, f"{{{name}}}: the step has no such parameter")
        value = value[part]
    return value


def _as_text(name: str, value: Any, field: str) -> str:
    if type(value) not in (str, int):
        raise InvalidInput(field, f"{{{name}}} must be text or an integer, not {type(value).__name__}")
    return str(value)
