"""Settings: from arguments, then the environment, then defaults; what makes no sense is named."""

from __future__ import annotations

from dataclasses import fields
from typing import cast

import pytest

from dotmac.tasks import BackgroundOperationsManager, InvalidInput, MemoryStorage, Settings
from dotmac.tasks.settings import SettingOptions


def variable(name: str) -> str:
    return "REDIS_URL" if name == "redis_url" else f"DOTMAC_TASKS_{name.upper()}"


def test_the_seed_s_defaults() -> None:
    settings = Settings.load({})
    assert (settings.default_ttl, settings.cleanup_interval, settings.redis_url) == (86400, 300, None)
    assert settings.saga_retention == 7 * 24 * 3600


@pytest.mark.parametrize("name", [field.name for field in fields(Settings) if field.type != "str | None"])
def test_each_number_can_be_set_in_the_environment_and_arguments_win(name: str) -> None:
    environ = {variable(name): "7"}
    assert getattr(Settings.load(environ), name) == 7
    argument, nothing = cast("SettingOptions", {name: 9}), cast("SettingOptions", {name: None})
    assert getattr(Settings.load(environ, **argument), name) == 9
    assert getattr(Settings.load(environ, **nothing), name) == 7
    assert getattr(Settings.load({variable(name): ""}), name) == getattr(Settings(), name)


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf", "1e999"])
def test_a_bad_value_names_its_variable(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings.load({"DOTMAC_TASKS_WORKER_LEASE": text})
    assert caught.value.field == "DOTMAC_TASKS_WORKER_LEASE"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("max_payload", "1.5", "must be a whole number of bytes"),
        ("max_running", "1.5", "must be a whole number of handlers"),
        ("max_worker_losses", "1.5", "must be a whole number of losses"),
        ("sync_handler_threads", "1.5", "must be a whole number of threads"),
        ("default_ttl", "0.0001", "0.001"),
    ],
)
def test_a_bound_of_one_setting_names_its_variable_too(name: str, text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        Settings.load({variable(name): text})
    assert caught.value.field == variable(name)
    with pytest.raises(InvalidInput, match=told) as caught:
        Settings.load({}, **cast("SettingOptions", {name: float(text)}))
    assert caught.value.field == name


@pytest.mark.parametrize("value", [-1, 0, float("nan"), float("inf"), "5", True])
def test_a_bad_argument_names_itself(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings.load({}, worker_lease=value)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.field == "worker_lease"
    with pytest.raises(InvalidInput):
        Settings(worker_lease=value)  # type: ignore[arg-type]  # wrong on purpose


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        Settings.load({}, worker_leese=5)  # type: ignore[call-arg]  # a type checker finds it, too
    assert caught.value.field == "worker_leese"
    assert "worker_lease" in str(caught.value)


def test_a_type_checker_sees_every_setting() -> None:
    assert list(SettingOptions.__annotations__) == [field.name for field in fields(Settings)]


def test_settings_given_twice_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not both") as caught:
        BackgroundOperationsManager(MemoryStorage(), settings=Settings(), worker_lease=5)
    assert caught.value.field == "worker_lease"


def test_a_manager_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOTMAC_TASKS_DEFAULT_TTL", "60")
    monkeypatch.delenv("REDIS_URL", raising=False)
    manager = BackgroundOperationsManager(cleanup_interval=5)
    assert (manager.settings.default_ttl, manager.settings.cleanup_interval) == (60, 5)
    assert isinstance(manager.storage, MemoryStorage)
    assert BackgroundOperationsManager(settings=Settings(default_ttl=9)).settings.default_ttl == 9


def test_what_can_be_printed_holds_no_password() -> None:
    url = "redis://shop:hush@localhost:6379/0"
    manager = BackgroundOperationsManager(redis_url=url, default_ttl=7)
    assert manager.settings.redis_url == url
    assert "default_ttl=7" in repr(manager.settings)
    assert "hush" not in f"{manager.settings!r} {vars(manager.storage)!r}"
