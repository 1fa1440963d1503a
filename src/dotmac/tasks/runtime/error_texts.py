"""Words for what a handler raised: its class is the user's own, and may fail when it is asked for its text."""

from __future__ import annotations

from ..signals import came_by_signal


def text_of(error: BaseException) -> str:
    """``str(error)``, or why there is none."""
    try:
        return str(error)
    except BaseException as broken:  # what was raised is what counts
        if came_by_signal(broken):
            raise
        return f"(its text cannot be had: {class_of(broken)})"


def message_of(error: BaseException) -> str:
    """The error's text, for a group with the class and text of each member."""
    if not issubclass(type(error), BaseExceptionGroup):
        return text_of(error)
    members = error.exceptions  # type: ignore[attr-defined]  # by its real class
    return f"{text_of(error)}: {'; '.join(f'{class_of(member)}: {text_of(member)}' for member in members)}"


def repr_of(error: BaseException) -> str:
    """``repr(error)``, or its class and why there is no more."""
    try:
        return repr(error)
    except BaseException as broken:
        if came_by_signal(broken):
            raise
        return f"{class_of(error)}: {text_of(error)}"


def class_of(error: BaseException) -> str:
    """The name of the error's class, which does not ask the error."""
    return type.__dict__["__name__"].__get__(type(error))  # type: ignore[no-any-return]  # of a C descriptor


def storable(text: str, most: int = 2000) -> str:
    """The text as it can be written as JSON, and no longer than that: an error can quote a whole response.

    Lone surrogates can be in any text that came from outside.
    """
    return text.encode("utf-8", "backslashreplace").decode()[:most]
