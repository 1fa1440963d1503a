"""The lock a step is run under: a template such as ``invoice:{parameters.invoice_id}``, and the name it stands for.

Pure. The template is checked when the saga is created; the name is made just before the handler is invoked, from the
step's own parameters with their references resolved, and is the same when the step is undone.

Different values of one template's fields give different names. Between two fields stands a separator, and where a value
holds one of the separators' characters, that character is percent-encoded: tenant ``a`` with ``b:c`` and tenant ``a:b``
with ``c`` do not meet. A value of a template with one field stands in the name as it is.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import InvalidInput
from ..idempotency import check_name
from .references import LITERAL, REF

_FIELD = re.compile(r"\{([^{}]*)\}")
_PARAMETERS = "parameters."
_LATER = object()  # stands for a value that an earlier step has yet to return


def check_lock(field: str, template: str, parameters: dict[str, Any]) -> None:
    """Refuse a template that no name can be made of.

    Args:
        field: Path of the template, for the error.
        template: What to check.
        parameters: Of the step; values behind a ``$ref`` are not known yet and not looked at.

    Raises:
        InvalidInput: It names something else than ``{parameters.<path>}``, ``{tenant_id}`` or ``{saga_id}``, or a
            parameter that is not there or is neither text nor an integer; or two fields have no separator.
    """
    check_name(field, template)
    if "{" in (rest := _FIELD.sub("", template)) or "}" in rest:
        raise InvalidInput(field, "has a brace without its other half")
    for between in _between(template):
        if not _separators(between):
            raise InvalidInput(field, f"needs a separator between two fields, such as ':', and not {between!r}")
    known = True
    for match in _FIELD.finditer(template):
        name = match[1]
        if name in ("tenant_id", "saga_id"):
            continue
        if not name.startswith(_PARAMETERS):
            allowed = "{parameters.<path>}, {tenant_id} and {saga_id}"
            raise InvalidInput(field, f"{{{name}}} cannot be filled in; there are {allowed}")
        value = _walk(name, parameters, field, expressions=True)
        if value is _LATER:
            known = False
        else:
            _as_text(name, value, field)
    if known:  # the whole name can be looked at, but for what the manager fills in, which is a name itself
        _filled(template, parameters, {"tenant_id": "t", "saga_id": "s"}, field, expressions=True)


def lock_name(template: str, parameters: dict[str, Any], tenant_id: str, saga_id: str, field: str = "lock") -> str:
    """The name that the template stands for. `field` names it in the error; `parameters` are expanded.

    Raises:
        InvalidInput: A parameter, come from an earlier step's result, is not there or cannot be part of a name.
    """
    return _filled(template, parameters, {"tenant_id": tenant_id, "saga_id": saga_id}, field)


def _filled(
    template: str, parameters: dict[str, Any], fixed: dict[str, str], field: str, *, expressions: bool = False
) -> str:
    separators = _separators("".join(_between(template)))

    def fill(match: re.Match[str]) -> str:
        value = fixed.get(match[1])
        if value is None:
            value = _as_text(match[1], _walk(match[1], parameters, field, expressions=expressions), field)
        return _encoded(value, separators)

    name = _FIELD.sub(fill, template)
    check_name(field, name)
    return name


def _walk(name: str, parameters: dict[str, Any], field: str, *, expressions: bool) -> Any:
    """The parameter at this path. With `expressions`, literals are opened, and a reference gives `_LATER`."""
    value: Any = parameters
    path: list[str | None] = [*name.removeprefix(_PARAMETERS).split("."), None]
    for part in path:
        if expressions and isinstance(value, dict):
            if REF in value:
                return _LATER
            if LITERAL in value:
                value, expressions = value[LITERAL], False
        if part is not None:
            if not isinstance(value, dict) or part not in value:
                raise InvalidInput(field, f"{{{name}}}: the step has no such parameter")
            value = value[part]
    return value


def _as_text(name: str, value: Any, field: str) -> str:
    if type(value) not in (str, int):
        raise InvalidInput(field, f"{{{name}}} must be text or an integer, not {type(value).__name__}")
    return str(value)


def _between(template: str) -> list[str]:
    """The texts that stand between two fields."""
    return _FIELD.split(template)[2:-1:2]


def _separators(text: str) -> set[str]:
    """The characters that tell where a value ends: none that percent-encoding needs, nor other letters and digits."""
    return {character for character in text if not character.isalnum() and character != "%"}


def _encoded(value: str, separators: set[str]) -> str:
    if not separators:
        return value
    encode = {ord(each): "".join(f"%{byte:02X}" for byte in each.encode()) for each in (*separators, "%")}
    return value.translate(encode)
