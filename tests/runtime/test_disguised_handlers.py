"""Handlers in wrappers: what a call returns is awaited, and functions whose body a call does not run are refused."""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sniffio
import trio

from bridge.hosts import HOSTS, Host, a_manager
from dotmac.tasks import BackgroundOperationsManager, HandlerContext, InvalidInput, MemoryStorage, OperationStatus
from dotmac.tasks.metrics import emit, register_attempt_hook, register_metadata_hook, register_metrics_hooks
from runtime.nodes import Node


async def real(parameters: dict[str, Any]) -> str:
    """Names the event loop that it runs in."""
    library = sniffio.current_async_library()
    if library == "asyncio":
        await asyncio.sleep(0)
    else:
        await trio.lowlevel.checkpoint()
    return f"{library} {parameters['n']}"


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def twice(parameters: dict[str, Any]) -> Any:
    return logged(real)(parameters)


class Returning:
    def __call__(self, parameters: dict[str, Any]) -> Awaitable[str]:
        return real(parameters)


class Asynchronous:
    async def __call__(self, parameters: dict[str, Any]) -> str:
        return await real(parameters)

    @staticmethod
    async def static(parameters: dict[str, Any]) -> str:
        return await real(parameters)

    @classmethod
    async def of_class(cls, parameters: dict[str, Any]) -> str:
        return await real(parameters)


class Promise:
    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters

    def __await__(self) -> Any:
        return real(self.parameters).__await__()


@types.coroutine
def generator_that_is_awaited(parameters: dict[str, Any]) -> Any:
    return (yield from real(parameters).__await__())


DISGUISED: dict[str, Any] = {
    "lambda": lambda p: real(p),  # noqa: PLW0108 - that is the case
    "wraps": logged(real),
    "wraps twice": logged(logged(real)),
    "partial of wraps": functools.partial(logged(real)),
    "staticmethod object": staticmethod(real),
    "staticmethod object of wraps": staticmethod(logged(real)),
    "partial of staticmethod object": functools.partial(staticmethod(real)),
    "static method": Asynchronous.static,
    "class method": Asynchronous.of_class,
    "object that returns a coroutine": Returning(),
    "object that is async": Asynchronous(),
    "partial of an object": functools.partial(Asynchronous()),
    "bound call": Returning().__call__,
    "async that returns a coroutine": twice,
    "class of awaitables": Promise,
    "generator that is awaited": generator_that_is_awaited,
}


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_what_a_handler_returns_is_awaited_in_the_loop_of_async_handlers(host: Host[Any]) -> None:
    manager = a_manager()
    for name, function in DISGUISED.items():
        manager.register_operation_handler(name, function)
        manager.register_compensation_handler(name, function)
    library = "asyncio" if "asyncio" in host.__name__ or "uvloop" in host.__name__ else "trio"

    async def program(manager: BackgroundOperationsManager) -> None:
        steps = [{"name": name, "operation": name, "parameters": {"n": 1}} for name in DISGUISED]
        outcome = await (await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
        assert outcome.results == dict.fromkeys(DISGUISED, f"{library} 1")
        run = manager.run_idempotent(tenant_id="t", operation_type="wraps", parameters={"n": 2})
        assert await run == f"{library} 2"

    host(manager, program)


async def test_compensations_and_decorated_operations_are_awaited_too() -> None:
    manager = a_manager()
    undone: list[str] = []

    async def undo(_parameters: Any, context: HandlerContext) -> None:
        undone.append(context.token)

    async def refuse(_parameters: Any) -> None:
        raise ValueError("no")

    manager.register_operation_handler("real", real)
    manager.register_operation_handler("refuse", logged(refuse))
    manager.register_compensation_handler("undo", logged(undo))
    run = manager.idempotent("decorated")(logged(real))
    steps: list[dict[str, Any]] = [
        {"name": "a", "operation": "real", "parameters": {"n": 1}, "compensation_operation": "undo"},
        {"name": "b", "operation": "refuse", "max_retries": 0},
    ]
    async with manager:
        handle = await manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)
        outcome = await handle.result()
        assert await run({"n": 3}, tenant_id="t") == "trio 3"
    assert (outcome.status, undone) == (OperationStatus.COMPENSATED, [f"{handle.saga_id}:0:undo"])
    assert outcome.error == "step 'b' failed: ValueError: no"


async def test_an_awaitable_is_cut_off_at_the_time_out(shared: MemoryStorage) -> None:
    ended: list[str] = []

    async def for_ever(_parameters: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("ended")

    def register(manager: BackgroundOperationsManager) -> None:
        manager.register_operation_handler("op", logged(for_ever))

    async with Node(shared, register) as node:
        steps = [{"name": "s", "operation": "op", "timeout_seconds": 0.05, "max_retries": 0}]
        outcome = await (await node.manager.start_saga(tenant_id="t", workflow_type="w", steps=steps)).result()
    assert ended == ["ended"]
    assert "StepTimedOut" in str(outcome.error)


# --- generators -------------------------------------------------------------------------------------------------------


def generator(parameters: dict[str, Any]) -> Iterator[int]:
    yield parameters["n"]


async def async_generator(parameters: dict[str, Any]) -> AsyncIterator[int]:
    yield parameters["n"]


class Generating:
    def __call__(self, parameters: dict[str, Any]) -> Iterator[int]:
        yield 1

    async def method(self, parameters: dict[str, Any]) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        functools.partial(generator),
        functools.partial(functools.partial(async_generator)),
        logged(generator),
        logged(logged(async_generator)),
        functools.partial(logged(generator)),
        staticmethod(async_generator),
        Generating(),
        Generating().method,
        functools.partial(Generating()),
        contextmanager(generator),
    ],
)
def test_a_generator_function_is_refused_with_the_fix(function: Any) -> None:
    manager = a_manager()
    for register in (
        manager.register_operation_handler,
        manager.register_compensation_handler,
        lambda name, function: manager.idempotent(name)(function),
    ):
        with pytest.raises(InvalidInput, match=r"handler of charge: is a generator function .* return the result"):
            register("charge", function)
    for hooks in (lambda hook: register_metrics_hooks(lock_acquired_hook=hook), register_attempt_hook):
        with pytest.raises(InvalidInput, match="is a generator function"):
            hooks(function)


def test_a_classmethod_object_is_refused_with_the_fix() -> None:
    with pytest.raises(InvalidInput, match=r"handler of op: is a classmethod object, .* register the method"):
        a_manager().register_operation_handler("op", vars(Asynchronous)["of_class"])


# --- the context ------------------------------------------------------------------------------------------------------


def bare(parameters: Any) -> Any:
    return None


def positional(parameters: Any, anything: Any) -> Any:
    return anything


def defaulted(parameters: Any, context: Any = None) -> Any:
    return context


def annotated(parameters: Any, ctx: HandlerContext | None = None) -> Any:
    return ctx


def keyword(parameters: Any, *, context: Any) -> Any:
    return context


def keyword_defaulted(parameters: Any, *, context: Any = None) -> Any:
    return context


def own_default(parameters: Any, retries: Any = None) -> Any:
    return retries


@pytest.mark.parametrize(
    ("function", "gets_context"),
    [
        (bare, False),
        (positional, True),
        (defaulted, True),
        (annotated, True),
        (keyword, True),
        (keyword_defaulted, True),
        (own_default, False),
        (functools.partial(keyword, context=None), False),
        (logged(keyword_defaulted), True),
    ],
)
async def test_an_argument_named_context_gets_the_context(function: Any, gets_context: bool) -> None:
    manager = a_manager()
    seen: list[Any] = []

    @functools.wraps(function)
    async def remembering(*args: Any, **kwargs: Any) -> None:
        seen.append(function(*args, **kwargs))

    plain = functools.partial(_plain, seen, function) if isinstance(function, functools.partial) else remembering
    manager.register_operation_handler("op", plain)
    async with manager:
        await manager.run_idempotent(tenant_id="t", operation_type="op")
    assert isinstance(seen[0], HandlerContext) is gets_context


async def _plain(seen: list[Any], function: Any, parameters: Any) -> None:
    seen.append(function(parameters))


# --- hooks ------------------------------------------------------------------------------------------------------------


async def async_hook(*_args: Any) -> None: ...


def test_async_hooks_are_refused() -> None:
    for hook in (async_hook, functools.partial(async_hook), staticmethod(async_hook)):
        with pytest.raises(InvalidInput, match="must be a plain function"):
            register_metrics_hooks(lock_acquired_hook=hook)
        with pytest.raises(InvalidInput, match="must be a plain function"):
            register_attempt_hook(hook)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="must be a plain function"):
            register_metadata_hook(hook)  # type: ignore[arg-type]


def test_an_awaitable_that_a_hook_returns_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    unregister = register_metrics_hooks(lock_acquired_hook=lambda _subject, _tenant: async_hook())
    try:
        for _ in range(2):
            emit("lock_acquired", "name", "t")
    finally:
        unregister()
    assert "a hook for lock_acquired raised" in caplog.text
    assert len(caplog.records) == 1
    assert "TypeError: the hook returned an awaitable" in caplog.text
