"""Text that can do nothing to a terminal, and cannot pretend to be two lines."""

from __future__ import annotations


def plain(value: object, keep: str = "") -> str:
    """The value as text, with whatever is not printable shown as its escape.

    Args:
        value: None is empty.
        keep: Characters that stay as they are, such as a newline.
    """
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
