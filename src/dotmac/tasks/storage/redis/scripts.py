"""The scripts, each from its file in ``lua/``."""

from __future__ import annotations

from importlib.resources import files

from .script import Script

_FOLDER = files("dotmac.tasks.storage.redis") / "lua"


def load(name: str) -> Script:
    """The script in ``lua/<name>.lua``."""
    return Script(name, (_FOLDER / f"{name}.lua").read_bytes())
