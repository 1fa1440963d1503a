"""What callers pass by mistake: each is refused by its name before anything is stored, or counts as what it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest

from dotmac.tasks import BackgroundOperationsManager, InvalidInput, MemoryStorage, Settings
from dotmac.tasks.settings import SettingOptions


class Text(str):
    """As markupsafe's Markup and numpy's str_ are: a string of a class of its own."""

    __slots__ = ()


class Number(float):
    """As numpy's float64 is."""

    __slots__ = ()


@pytest.fixture
async def manager() -> AsyncIterator[BackgroundOperationsManager]:
    made = BackgroundOperationsManager(storage=MemoryStorage())

    @made.register_operation_handler("a")
    async def handle(_parameters: dict[str, Any]) -> dict[str, Any]:
        return {"done": True}

    async with made:
        yield made


async def test_strings_and_numbers_of_other_classes_count_as_what_they_are(
    manager: BackgroundOperationsManager,
) -> None:
    text: Any = Text("acme")
    saga = await manager.start_saga(
        tenant_id=text,
        workflow_type=Text("order"),
        steps=[{"name": Text("one"), "operation": "a"}],
        idempotency_key=Text("key"),
        timeout_seconds=Number(5.0),
        metadata={Text("trace"): Text("t-1")},
    )
    again = await manager.start_saga(
        tenant_id="acme",
        workflow_type="order",
        steps=[{"name": "one", "operation": "a"}],
        idempotency_key="key",
        timeout_seconds=5.0,
    )
    assert saga.saga_id == again.saga_id
    assert (await saga.result()).completed
    stored = await saga.get()
    assert (type(stored.tenant_id), type(stored.timeout_seconds)) == (str, float)
    one = await manager.create_idempotency_key(text, Text("ada"), Text("a"), parameters={"n": 1})
    other = await manager.create_idempotency_key("acme", "ada", "a", parameters={"n": 1})
    assert one.key == other.key


Call = Callable[[BackgroundOperationsManager], Awaitable[Any]]


async def hold(manager: BackgroundOperationsManager, name: Any, **options: Any) -> None:
    async with manager.lock(name, **options):
        raise AssertionError("it was granted")


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("name", lambda manager: hold(manager, None)),
        ("name", lambda manager: hold(manager, 42)),
        ("wait", lambda manager: hold(manager, "a", wait=10**400)),
        ("key", lambda manager: manager.acquire_lock("", 5)),
        ("key", lambda manager: manager.release_lock(["a"])),
        ("limit", lambda manager: manager.list_locks(0)),
        ("limit", lambda manager: manager.list_locks(2.5)),
        ("limit", lambda manager: manager.list_locks("5")),
    ],
)
async def test_locks_are_asked_for_by_what_can_be_one(
    manager: BackgroundOperationsManager, field: str, call: Call
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await call(manager)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "event", "details"),
    [
        ("event", None, {}),
        ("event", "", {}),
        ("event", ["called"], {}),
        ("event", "a\nb", {}),
        ("details", "called", None),
        ("details.at", "called", {"at": {1}}),
        ("details", "called", {"text": "x" * 2_000_000}),
    ],
)
async def test_a_note_that_nobody_could_read_is_refused(
    manager: BackgroundOperationsManager, field: str, event: Any, details: Any
) -> None:
    saga = await manager.create_saga_workflow("t", "w", [{"name": "one", "operation": "a"}])
    before = await manager.get_saga_history(saga.saga_id)
    with pytest.raises(InvalidInput) as refused:
        await manager.add_saga_note(saga.saga_id, event, details)
    assert refused.value.field == field
    assert await manager.get_saga_history(saga.saga_id) == before


async def test_one_class_of_errors_is_no_tuple_of_them(manager: BackgroundOperationsManager) -> None:
    wrong: Any = TimeoutError
    with pytest.raises(InvalidInput, match=r"unknown_errors.*\(TimeoutError,\)"):
        manager.register_operation_handler("b", lambda parameters: None, unknown_errors=wrong)


def test_settings_with_which_nothing_could_be_stored_are_refused() -> None:
    for field, value in (("default_ttl", 1e-320), ("max_payload", 0.5), ("max_payload", 100.5)):
        with pytest.raises(InvalidInput) as refused:
            Settings.load({}, **cast("SettingOptions", {field: value}))
        assert refused.value.field == field
    loaded = Settings.load({"DOTMAC_TASKS_MAX_PAYLOAD": "1000"})
    assert type(loaded.max_payload) is int


async def test_a_second_handler_for_a_name_is_refused_unless_it_shall_replace_the_first(
    manager: BackgroundOperationsManager,
) -> None:
    async def other(_parameters: dict[str, Any]) -> dict[str, Any]:
        return {"done": "otherwise"}

    async def undo(_parameters: dict[str, Any]) -> None: ...

    with pytest.raises(InvalidInput, match=r"'a' is registered already.*handle.*replace=True") as refused:
        manager.register_operation_handler("a", other)
    assert refused.value.field == "operation_type"
    manager.register_compensation_handler("a", undo)  # a name of its own: operations and compensations are apart
    with pytest.raises(InvalidInput, match="replace=True"):
        manager.register_compensation_handler("a", other)
    manager.register_operation_handler("a", other, replace=True)
    manager.register_operation_handler("a", other)  # the same once more changes nothing
    assert await manager.run_idempotent(tenant_id="t", operation_type="a") == {"done": "otherwise"}


@pytest.mark.parametrize("wrong", [5, True, object(), (5,), "TimeoutError"])
async def test_what_are_no_classes_of_errors_is_refused_by_its_field(
    manager: BackgroundOperationsManager, wrong: Any
) -> None:
    with pytest.raises(InvalidInput) as refused:
        manager.register_operation_handler("b", lambda parameters: None, unknown_errors=wrong)
    assert refused.value.field == "unknown_errors"
