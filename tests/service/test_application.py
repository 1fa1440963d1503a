"""`MODULE:ATTR`: what is found, and how what is not is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dotmac.tasks import BackgroundOperationsManager, InvalidInput
from dotmac.tasks.service.application import load_manager

SOURCE = """
from dotmac.tasks import BackgroundOperationsManager, MemoryStorage

class Shop:
    manager = BackgroundOperationsManager(MemoryStorage())

manager = Shop.manager

def make():
    return BackgroundOperationsManager(MemoryStorage())

def make_nothing():
    return None

def make_of(name, kind="x"):
    return BackgroundOperationsManager(MemoryStorage())

async def make_later():
    return BackgroundOperationsManager(MemoryStorage())

async def handler(parameters, context):
    return {}

class Makes:
    async def __call__(self):
        return BackgroundOperationsManager(MemoryStorage())

makes = Makes()

def make_in_vain():
    raise TypeError("the shop is closed")

number = 7
"""


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loaded_shop.py").write_text(SOURCE)
    (tmp_path / "loaded_broken.py").write_text("import loaded_missing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("loaded_shop", "loaded_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize("reference", ["loaded_shop:manager", "loaded_shop:Shop.manager", "loaded_shop:make"])
def test_a_manager_is_found_in_the_working_directory(reference: str) -> None:
    assert isinstance(load_manager(reference), BackgroundOperationsManager)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("loaded_shop", "must be MODULE:ATTR"),
        (":manager", "must be MODULE:ATTR"),
        (".loaded_shop:manager", "must be MODULE:ATTR"),
        ("../loaded_shop:manager", "must be MODULE:ATTR"),
        ("loaded_nothing:manager", "there is no module 'loaded_nothing'"),
        ("loaded_shop.below:manager", "there is no module 'loaded_shop.below'"),
        ("loaded_shop:Manager", "loaded_shop has no attribute 'Manager'; its managers are: manager"),
        ("loaded_shop:number.foo", "loaded_shop has no attribute 'number.foo'; its managers are: manager"),
        ("loaded_shop:number", "is a int; it must be a BackgroundOperationsManager"),
        ("loaded_shop:make_nothing", "is a NoneType"),
        ("loaded_shop:make_of", "cannot be called without arguments (missing a required argument: 'name')"),
        ("loaded_shop:make_later", "is async; it must be a BackgroundOperationsManager, or return one when it is"),
        ("loaded_shop:makes", "is async"),
        ("loaded_shop:handler", "is async"),
    ],
)
def test_what_cannot_be_found_is_told(reference: str, told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        load_manager(reference)
    assert refused.value.field == reference
    assert told in refused.value.reason


def test_an_error_of_the_factory_is_not_taken_for_a_wrong_call() -> None:
    with pytest.raises(TypeError, match="the shop is closed"):
        load_manager("loaded_shop:make_in_vain")


def test_an_error_inside_the_module_is_not_taken_for_a_missing_module() -> None:
    with pytest.raises(ModuleNotFoundError, match="loaded_missing"):
        load_manager("loaded_broken:manager")
