"""The addresses of embedded servers: from ``embedded://./data`` to the folder, and from a folder to its address.

It exists so that both ways agree on how a name is written that has characters with a meaning in addresses.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.storage.embedded_folder import absolute


def parse_embedded_url(url: str) -> Path:
    """The folder that an ``embedded://`` address names.

    ``embedded://./data`` and ``embedded://data`` are relative to the working directory, ``embedded:///var/data``
    is absolute, ``embedded://~/data`` is in the home directory.

    Raises:
        InvalidInput: If it is another kind of address, names no folder, or one that cannot be, or has a query or
            fragment.
    """
    scheme, separator, folder = url.partition("://")
    if not separator or scheme.lower() != "embedded":
        raise InvalidInput("url", f"{url!r} does not begin with embedded://")
    if "?" in folder or "#" in folder:
        raise InvalidInput("url", f"{url!r} has more than a folder; in a folder's name, write %3F for ? and %23 for #")
    if not folder:
        raise InvalidInput("url", f"{url!r} names no folder; write embedded://./data, for example")
    # Names of files are bytes, and need not be text: see `os.fsencode`.
    path = unquote(folder, errors="surrogateescape")
    try:
        if "\0" in path:
            raise InvalidInput("url", f"{url!r} has a null character, which no folder's name can have")
        return Path(path).expanduser()
    except RuntimeError as error:  # there is no such user, or HOME is not known
        raise InvalidInput("url", f"{url!r}: {error}") from error


def embedded_url(path: str | Path) -> str:
    """The address that names this folder, wherever the working directory will be.

    Raises:
        InvalidInput: It is empty, or can be no path.
    """
    if not os.fspath(path):
        raise InvalidInput("path", "names no folder; '.' is the working directory")
    return f"embedded://{quote(os.fsencode(absolute(path)))}"
