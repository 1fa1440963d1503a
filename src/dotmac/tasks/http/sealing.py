"""Stored responses that only this application can read: a codec between the middleware and its storage. Pure.

A codec turns the stored form of a response into another JSON document and back. `FernetCodec` encrypts it. What it
makes is bound to the record that it was made for: a response that somebody copies to another record does not open.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..errors import InvalidInput, UnsealFailed
from ..extras import needs
from ..jsonvalue import encode
from .replay import StoredResponse, dump_response, load_response

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_DIGEST_SIZE = 32


class ResponseCodec(Protocol):
    """What stands between the stored form of a response and the storage."""

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Turn a JSON object into another JSON document. `context`: what the result is bound to."""
        ...

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Turn it back.

        Raises:
            UnsealFailed: It was not made by `seal` for this context, or not under a key that this codec has.
        """
        ...


class FernetCodec:
    """Encrypts stored responses with Fernet (AES-128-CBC and HMAC-SHA-256); needs the ``crypto`` extra.

    Args:
        keys: One key or several, as ``Fernet.generate_key()`` makes them. The first seals, all of them open: put a
            new key in front, and take the old one away once what it sealed has run out.
        accept_plain: Whether responses that were stored before there was a codec are read. Turn it off once these
            have run out: it lets in whatever else is written to the storage.

    Raises:
        InvalidInput: A key is none.
        ModuleNotFoundError: The extra is not installed.
    """

    def __init__(self, keys: str | bytes | Sequence[str | bytes], *, accept_plain: bool = False) -> None:
        self._fernet = _fernet([keys] if isinstance(keys, str | bytes) else list(keys))
        self._accept_plain = accept_plain

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt under the first key. Gives a JSON string."""
        return encode(self._fernet.encrypt(_bound_to(context) + plain).decode("ascii"))

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt under whichever key fits.

        Raises:
            UnsealFailed: No key fits, it was changed, or it was sealed for another context.
        """
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - needs the crypto extra

        if self._accept_plain and sealed[:1] == b"{":
            return sealed
        try:
            opened = self._fernet.decrypt(msgspec.json.decode(sealed, type=str).encode())
        except msgspec.DecodeError as error:
            raise UnsealFailed("the stored response is not sealed; see FernetCodec(accept_plain=True)") from error
        except InvalidToken as error:
            raise UnsealFailed("no key opens the stored response, or it was changed since") from error
        if opened[:_DIGEST_SIZE] != _bound_to(context):
            raise UnsealFailed("the stored response was sealed for another request")
        return opened[_DIGEST_SIZE:]


def seal_response(stored: StoredResponse, codec: ResponseCodec | None, record_key: str) -> bytes:
    """The JSON document that is stored in a record."""
    plain = dump_response(stored)
    return plain if codec is None else codec.seal(plain, record_key.encode())


def unseal_response(data: bytes, codec: ResponseCodec | None, record_key: str) -> StoredResponse:
    """The response from what is stored in a record.

    Raises:
        UnsealFailed: See `ResponseCodec`.
        StoredResponseUnreadable: It is sealed and there is no codec, damaged, or of a later version.
    """
    return load_response(data if codec is None else codec.unseal(data, record_key.encode()))


def _bound_to(context: bytes) -> bytes:
    """Fernet has no associated data; what is encrypted begins with this instead, and cannot be changed either."""
    return sha256(context).digest()


def _fernet(keys: list[str | bytes]) -> MultiFernet:
    with needs("FernetCodec", "crypto"):
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - needs the crypto extra
    if not keys:
        raise InvalidInput("keys", "must be one key or several, as Fernet.generate_key() makes them")
    made = []
    for index, key in enumerate(keys):
        try:
            made.append(Fernet(key))
        except (ValueError, TypeError) as error:  # the key is not repeated: it may be a good one with a typing error
            raise InvalidInput(
                f"keys[{index}]", "must be 32 bytes in URL-safe base64: Fernet.generate_key()"
            ) from error
    return MultiFernet(made)
