"""Errors and values go through a process pool: pickled and copied, they are what they were."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import trio

import dotmac.tasks
from dotmac.tasks import BackgroundOperationsManager, HandlerContext, MemoryStorage, errors
from dotmac.tasks.http.options import IdempotencyOptions
from dotmac.tasks.http.replay import StoredResponse

ARGUMENTS: dict[type, tuple[tuple[Any, ...], dict[str, Any]]] = {
    errors.InvalidInput: (("steps[1].name", "must be text"), {}),
    errors.IdempotencyInProgress: (("busy",), {"retry_after": 2.5}),
}
WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),  # noqa: S301 - its own
    "older pickle": lambda value: pickle.loads(pickle.dumps(value, 2)),  # noqa: S301 - its own
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def tree(kind: type[errors.DotmacTasksError] = errors.DotmacTasksError) -> Iterator[type[errors.DotmacTasksError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.startswith("dotmac.tasks"):
            yield from tree(child)


def made(kind: type[errors.DotmacTasksError]) -> errors.DotmacTasksError:
    for parent in kind.__mro__:
        if parent in ARGUMENTS:
            positional, named = ARGUMENTS[parent]
            return kind(*positional, **named)
    return kind("what happened")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", sorted(set(tree()), key=str))
def test_each_error_keeps_its_attributes(kind: type[errors.DotmacTasksError], way: Callable[[Any], Any]) -> None:
    error = made(kind)
    error.add_note("seen at noon")
    again = way(error)
    assert type(again) is kind
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
    assert again.__notes__ == ["seen at noon"]


class WithItsOwnArguments(errors.NonRetryableError):
    """An error of an application."""

    def __init__(self, code: int, *, card: str) -> None:
        super().__init__(f"declined: {code}")
        self.code, self.card = code, card


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_error_of_an_application_needs_nothing_of_its_own(way: Callable[[Any], Any]) -> None:
    again = way(WithItsOwnArguments(51, card="visa"))
    assert (str(again), again.code, again.card) == ("declined: 51", 51, "visa")


def refuse() -> None:
    raise errors.InvalidInput("amount", "must be positive")


def test_an_error_comes_back_from_a_process_pool() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        error = pool.submit(refuse).exception(60)
    assert isinstance(error, errors.InvalidInput)
    assert (error.field, error.reason) == ("amount", "must be positive")


async def values() -> dict[str, Any]:
    """One value of each public class of plain data."""
    manager = BackgroundOperationsManager(MemoryStorage())
    contexts: list[HandlerContext] = []

    async def work(_parameters: Any, context: HandlerContext) -> dict[str, int]:
        contexts.append(context)
        return {"n": 1}

    manager.register_operation_handler("work", work)
    steps: list[dict[str, Any]] = [
        {"name": "a", "operation": "work"},
        {"name": "b", "operation": "work", "timeout_seconds": 60},
    ]
    async with manager:
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps, metadata={"trace": "1"})
        outcome = await handle.result()
        key = await manager.create_idempotency_key("t", None, "work")
        async with manager.lock("l"):
            found: list[Any] = [
                outcome,
                await handle.get(),
                await manager.list_sagas(),
                (await manager.get_saga_history(handle.saga_id))[0],
                key,
                await manager.list_idempotency_keys(),
                (await manager.list_locks())[0],
                await manager.inspect_lock("l"),
                (await manager.list_workers())[0],
                (await manager.examine())[0],
                contexts[1],
            ]
    found += [manager.settings, IdempotencyOptions(key_pattern="[a-z]+"), dotmac.tasks.Identity("t", "u")]
    found += [dotmac.tasks.RetryPolicy(), dotmac.tasks.SagaStep(name="a", operation="work", parameters={"a": [1]})]
    found += [StoredResponse(status=200, headers=((b"a", b"b"),), body=b"c")]
    return {type(value).__name__: value for value in found}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_public_values_are_what_they_were(way: Callable[[Any], Any]) -> None:
    for name, value in trio.run(values).items():
        again = way(value)
        assert type(again) is type(value), name
        if not isinstance(value, HandlerContext):
            assert again == value, name


def test_a_context_that_was_pickled_says_what_it_said_and_refuses_heartbeats() -> None:
    context = trio.run(values)["HandlerContext"]
    again = pickle.loads(pickle.dumps(context))  # noqa: S301 - its own
    assert (again.results, again.metadata) == ({"a": {"n": 1}}, {"trace": "1"})
    assert (again.token, again.deadline, again.step) == (context.token, context.deadline, "b")
    with pytest.raises(errors.UsageError, match="is a copy"):
        again.heartbeat()
