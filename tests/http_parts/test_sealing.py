"""Stored responses that are sealed: they open under their keys and for their record, and not otherwise."""

from __future__ import annotations

import json
import sys

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.errors import InvalidInput, StoredResponseUnreadable, UnsealFailed
from dotmac.tasks.http.replay import StoredResponse, dump_response
from dotmac.tasks.http.sealing import FernetCodec, seal_response, unseal_response

OLD, NEW = Fernet.generate_key(), Fernet.generate_key()
CODEC = FernetCodec(NEW)
STORED = StoredResponse(status=200, headers=((b"x-secret", b"hush"),), body=b"hush", result="hush")


@given(st.binary(), st.binary())
def test_what_is_sealed_opens_for_its_context(plain: bytes, context: bytes) -> None:
    sealed = CODEC.seal(plain, context)
    assert isinstance(json.loads(sealed), str)
    assert CODEC.unseal(sealed, context) == plain


def test_a_response_is_not_readable_in_the_storage() -> None:
    sealed = seal_response(STORED, CODEC, "record")
    assert b"hush" not in sealed
    assert unseal_response(sealed, CODEC, "record") == STORED


def test_without_a_codec_the_plain_form_is_stored() -> None:
    assert seal_response(STORED, None, "record") == dump_response(STORED)
    assert unseal_response(dump_response(STORED), None, "record") == STORED


def test_a_response_cannot_be_moved_to_another_record() -> None:
    with pytest.raises(UnsealFailed, match="for another request"):
        unseal_response(seal_response(STORED, CODEC, "record"), CODEC, "another")


def test_keys_rotate() -> None:
    under_old = seal_response(STORED, FernetCodec(OLD), "record")
    both = FernetCodec([NEW.decode(), OLD])
    assert unseal_response(under_old, both, "record") == STORED
    assert unseal_response(seal_response(STORED, both, "record"), CODEC, "record") == STORED
    with pytest.raises(UnsealFailed, match="no key opens"):
        unseal_response(under_old, CODEC, "record")


@pytest.mark.parametrize("sealed", [b"5", b"", b'{"v":1}', b"\xff"])
def test_what_is_not_sealed_is_refused(sealed: bytes) -> None:
    with pytest.raises(UnsealFailed, match="is not sealed"):
        CODEC.unseal(sealed, b"record")


@pytest.mark.parametrize("sealed", [b'""', b'"nonsense"', b'"gAAAA\xc3\xa9"'])
def test_what_was_changed_is_refused(sealed: bytes) -> None:
    with pytest.raises(UnsealFailed, match="no key opens"):
        CODEC.unseal(sealed, b"record")


def test_responses_from_before_the_codec_are_read_where_that_is_wanted() -> None:
    assert unseal_response(dump_response(STORED), FernetCodec(NEW, accept_plain=True), "record") == STORED


def test_a_sealed_response_asks_for_its_codec() -> None:
    with pytest.raises(StoredResponseUnreadable, match="give the middleware the codec"):
        unseal_response(seal_response(STORED, CODEC, "record"), None, "record")


@pytest.mark.parametrize(
    ("keys", "field"), [([], "keys"), ("secret", "keys[0]"), ([NEW, b"secret"], "keys[1]"), ([NEW, 5], "keys[1]")]
)
def test_what_is_no_key_is_named_by_its_place_and_not_repeated(keys: list[str | bytes], field: str) -> None:
    with pytest.raises(InvalidInput, match=r"Fernet.generate_key\(\)") as refused:
        FernetCodec(keys)
    assert refused.value.field == field
    assert "secret" not in str(refused.value)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'dotmac-tasks\[crypto\]'"):
        FernetCodec(NEW)
