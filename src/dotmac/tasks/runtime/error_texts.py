"""Words for what a handler raised: its class is the user's own, and may fail when it is asked for its text."""

from __future__ import annotations


def text_of(error: BaseException) -> str:
    """``str(error)``, or why there is none."""
    try:
        return str(error)
    except Exception as broken:  # what was raised is what counts
        return f"(its text cannot be had: {type(broken).__name__})"


def repr_of(error: BaseException) -> str:
    """``repr(error)``, or its class and why there is no more."""
    try:
        return repr(error)
    except Exception:
        return f"{type(error).__name__}: {text_of(error)}"


def storable(text: str, most: int = 2000) -> str:
    """The text as it can be written as JSON, and no longer than that: an error can quote a whole response.

    Lone surrogates can be in any text that came from outside.
    """
    return text.encode("utf-8", "backslashreplace").decode()[:most]
