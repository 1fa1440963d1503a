"""What a user's callable does when it is called, seen through the wrappers around it.

A callable that is no coroutine function can still return an awaitable: a lambda, a decorator's wrapper, an object whose
``__call__`` hands out a coroutine. Only the call shows it. A generator function is known before the call, and calling
it runs none of its body.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import CoroutineType, GeneratorType, MethodType
from typing import Any

from .errors import InvalidInput


def is_async(function: Any) -> bool:
    """Whether a call is certain to give a coroutine. False says nothing: the result may be awaitable all the same."""
    inner = innermost(function)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(innermost(type(inner).__call__))


def refuse_generators(field: str, function: Any) -> None:
    """Refuse generator and async generator functions, also wrapped ones.

    Args:
        field: Names the function in the error.
        function: A callable.

    Raises:
        InvalidInput: Calling the function gives a generator.
    """
    inner = innermost(function)
    for each in (inner, innermost(type(inner).__call__)):
        while each is not None:
            if _is_generator_function(each):
                raise InvalidInput(
                    field,
                    f"is a generator function ({_name(each)}), whose body does not run when it is called: remove "
                    "'yield' and return the result. If a decorator runs the generator, register a plain function "
                    "that calls the decorated one",
                )
            each = _wrapped(each)  # noqa: PLW2901 - down to what functools.wraps names


def is_awaitable(value: object) -> bool:
    """As `inspect.isawaitable`, by the real class of the value, whose ``__class__`` may raise."""
    kind = type(value)
    if issubclass(kind, GeneratorType):
        return bool(value.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)  # type: ignore[attr-defined]
    return issubclass(kind, Awaitable)


def close_unawaited(value: object) -> None:
    """Close a coroutine that is dropped, so that Python does not warn of it."""
    if issubclass(type(value), CoroutineType):
        value.close()  # type: ignore[attr-defined]  # by its real class


def innermost(function: Any) -> Any:
    """The function inside partial objects, static methods and bound methods."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, staticmethod | MethodType):
            function = function.__func__
        else:
            return function


def _is_generator_function(function: Any) -> bool:
    """Whether the body is left to an iteration. A generator of `types.coroutine` is awaited instead."""
    if inspect.isgeneratorfunction(function):
        return not function.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE
    return inspect.isasyncgenfunction(function)


def _wrapped(function: Any) -> Callable[..., Any] | None:
    inner = getattr(function, "__wrapped__", None)
    return innermost(inner) if callable(inner) else None


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
