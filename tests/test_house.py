"""The house's own rules: modules of one concept, honest exports, a typed package that shares its namespace."""

from __future__ import annotations

import importlib
import pkgutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from _pytest.mark import ParameterSet

import dotmac.tasks

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "dotmac" / "tasks"
LIMIT = 400


def modules() -> list[ParameterSet]:
    return [pytest.param(path, id=str(path.relative_to(SOURCE))) for path in sorted(SOURCE.rglob("*.py"))]


def test_names_of_test_modules_are_unique() -> None:
    """Tests are no package, so two modules of one name could not be collected together."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", modules())
def test_a_module_is_short_and_says_why_it_exists(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < LIMIT
    assert text.startswith('"""') or not text.strip() or path.name == "_version.py"


def packages() -> list[ModuleType]:
    below = pkgutil.walk_packages(dotmac.tasks.__path__, "dotmac.tasks.")
    found = [dotmac.tasks, *(importlib.import_module(info.name) for info in below if info.ispkg)]
    return [package for package in found if hasattr(package, "__all__")]


@pytest.mark.parametrize("package", packages(), ids=lambda package: package.__name__)
def test_what_a_package_exports_exists_once_and_in_order(package: ModuleType) -> None:
    exported = package.__all__
    assert len(set(exported)) == len(exported)
    assert list(exported) == sorted(exported)
    for name in exported:
        assert getattr(package, name) is not None


def test_everything_public_that_the_package_imports_is_exported() -> None:
    public = {
        name
        for name, value in vars(dotmac.tasks).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public <= set(dotmac.tasks.__all__)


def test_the_errors_are_one_tree() -> None:
    errors = importlib.import_module("dotmac.tasks.errors")
    for name, value in vars(errors).items():
        if isinstance(value, type) and value.__module__ == errors.__name__:
            assert issubclass(value, errors.DotmacTasksError), name
            assert value.__doc__, name


def test_the_namespace_is_shared_and_the_package_is_typed() -> None:
    assert not (ROOT / "src" / "dotmac" / "__init__.py").exists()
    assert (SOURCE / "py.typed").exists()
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["src/dotmac"]
