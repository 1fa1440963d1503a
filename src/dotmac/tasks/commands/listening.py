"""What `serve` is told about its listening, examined before anything starts."""

from __future__ import annotations

import ssl
from pathlib import Path

from ..errors import InvalidInput


def check_tls(certfile: Path | None, keyfile: Path | None) -> None:
    """Refuse half a pair, which would be no TLS at all, and files that are no certificate and its key.

    Raises:
        InvalidInput: Naming the option or the file.
    """
    if certfile is None and keyfile is None:
        return
    if keyfile is None:
        raise InvalidInput("--certfile", "needs --keyfile too")
    if certfile is None:
        raise InvalidInput("--keyfile", "needs --certfile too")
    for option, path in (("--certfile", certfile), ("--keyfile", keyfile)):
        try:
            path.open("rb").close()
        except OSError as error:  # the error of ssl names no file
            raise InvalidInput(option, f"{path}: {error.strerror or error}") from error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
    except ssl.SSLError as error:
        told = f"{certfile} and {keyfile} are not a certificate chain and its key, as PEM: {error}"
        raise InvalidInput("--certfile", told) from error
