"""Finds what a command was told to run: ``MODULE:ATTR``, a manager or a callable that returns one."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..callables import close_unawaited, is_async, is_awaitable
from ..errors import InvalidInput
from ..manager import BackgroundOperationsManager

_WANTED = "it must be a BackgroundOperationsManager, or return one when it is called"


def load_attribute(reference: str, example: str) -> Any:
    """What ``MODULE:ATTR`` names; modules are looked for in the working directory too.

    Args:
        reference: Such as ``app.sagas:manager``; ``ATTR`` may have dots.
        example: Of a right reference, for messages.

    Raises:
        InvalidInput: There is no such module or attribute. An error inside the module is raised as it is.
    """
    module_name, _, path = reference.partition(":")
    if not module_name or not path or module_name.startswith("."):  # there is nothing that it could be relative to
        raise InvalidInput(reference, f"must be MODULE:ATTR, such as {example}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses one of its own
        raise InvalidInput(
            reference, f"there is no module {error.name!r}; it is looked for in {here} and in the installed packages"
        ) from error
    module = found
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise InvalidInput(reference, f"{module_name} has no attribute {path!r}; {_offers(module)}") from error
    return found


def load_manager(reference: str) -> BackgroundOperationsManager:
    """The manager that ``MODULE:ATTR`` names, or that the callable of this name returns.

    Raises:
        InvalidInput: There is no such thing, or it is something else.
    """
    found = load_attribute(reference, "app.sagas:manager")
    if not isinstance(found, BackgroundOperationsManager) and callable(found):
        found = _made(reference, found)
    if not isinstance(found, BackgroundOperationsManager):
        raise InvalidInput(reference, f"is a {type(found).__name__}; {_WANTED}")
    return found


def _made(reference: str, factory: Callable[[], Any]) -> Any:
    # Told from outside, so that an error of the factory's own stays what it is.
    if is_async(factory):
        raise InvalidInput(reference, f"is async; {_WANTED}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise InvalidInput(reference, f"cannot be called without arguments ({error}); {_WANTED}") from error
    except ValueError:  # it does not tell what it takes, as some of C do not
        pass
    made = factory()
    if is_awaitable(made):
        close_unawaited(made)
        raise InvalidInput(reference, f"is async; {_WANTED}")
    return made


def _offers(module: Any) -> str:
    managers = [name for name, value in vars(module).items() if isinstance(value, BackgroundOperationsManager)]
    return f"its managers are: {', '.join(managers)}" if managers else "it has no manager at its top level"
