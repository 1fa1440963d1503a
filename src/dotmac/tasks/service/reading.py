"""Reading the bodies of requests, up to a limit."""

from __future__ import annotations

from contextlib import aclosing
from urllib.parse import parse_qs

from starlette.requests import Request

from ..errors import InvalidInput

LARGEST_FORM = 16_384
"""Bytes that a form may have."""


async def read_body(request: Request, most: int) -> bytes:
    """The whole body.

    Raises:
        InvalidInput: It has more than `most` bytes.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise _too_large(most)
    body = b""
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > most:
                raise _too_large(most)
    return body


async def read_form(request: Request) -> dict[str, str]:
    """The first value of each field of a plain form: parsed here, so that no form parser has to be installed.

    Raises:
        InvalidInput: The form is too large.
    """
    body = await read_body(request, LARGEST_FORM)
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _too_large(most: int) -> InvalidInput:
    return InvalidInput("body", f"may have {most} bytes")
