"""Says what to install where something needs more than the base install has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs(what: str, extra: str) -> Iterator[None]:
    """Surrounds imports of what an extra brings.

    Args:
        what: Needs them, as users know it.
        extra: Of this distribution.

    Raises:
        ModuleNotFoundError: Naming the module, and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error}; {what} needs more packages: pip install 'dotmac-tasks[{extra}]'", name=error.name
        ) from error
