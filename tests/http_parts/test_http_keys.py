"""What is a key in the Idempotency-Key header, and what is refused, without ever repeating it."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.errors import BadIdempotencyKey, InvalidInput
from dotmac.tasks.http.keys import parse_idempotency_key

UUID = "8e03978e-40d5-43dd-bc93-6894a57f9324"
sf_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)
bare_text = st.text(st.sampled_from([chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\']), min_size=1)


def quoted(key: str) -> bytes:
    return b'"' + key.replace("\\", "\\\\").replace('"', '\\"').encode("ascii") + b'"'


@given(sf_text)
def test_any_structured_field_string_comes_back_as_it_was(key: str) -> None:
    assert parse_idempotency_key([quoted(key)]) == key
    assert parse_idempotency_key([b" \t" + quoted(key) + b" \t"], compat=False) == key


@given(bare_text)
def test_a_bare_token_is_the_same_key_as_its_quoted_form(key: str) -> None:
    assert parse_idempotency_key([key.encode()], most=1000) == parse_idempotency_key([quoted(key)], most=1000) == key


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_give_a_key_or_a_refusal(value: bytes, compat: bool) -> None:
    with contextlib.suppress(BadIdempotencyKey):  # what else it raised would show
        key = parse_idempotency_key([value], compat=compat)
        assert 0 < len(key) <= 255
        assert key.isascii()
        assert key.isprintable()


@pytest.mark.parametrize(
    "key", [UUID, "01ARZ3NDEKTSV4RRFFQ69G5FAV", "req_aB-1.2:3/4=+~", "order/17#2", "K'(1)", "a" * 255]
)
def test_keys_of_the_field_pass_bare(key: str) -> None:
    assert parse_idempotency_key([key.encode()]) == key


@pytest.mark.parametrize(
    "parameters",
    [b";a", b"; a=1", b";a=-1.5;b", b';a="x;y\\""', b";a=tok/en", b";a=:aGk=:", b";a=?1", b";*a=@17", b';a=%"%c3%bc"'],
)
def test_parameters_are_ignored(parameters: bytes) -> None:
    assert parse_idempotency_key([quoted(UUID) + parameters], compat=False) == UUID


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([b""], "is empty"),
        ([b"  "], "is empty"),
        ([b'""'], "is empty"),
        ([], "not 0 times"),
        ([b"secret", b"secret"], "must be sent once, not 2 times"),
        ([b'"secret'], "has no closing quote"),
        ([b'"secret\\"'], "has no closing quote"),
        ([b'"secret\\x"'], "has a backslash before something else"),
        ([b'"\\\\secret\\'], "has no closing quote"),
        ([b'secret"'], "must stand in double quotes"),
        ([b"secret;a=1"], "must stand in double quotes"),
        ([b"sec ret"], "must stand in double quotes"),
        ([b"sec\\ret"], "must stand in double quotes"),
        ([b"secret,other"], "is a list"),
        ([b'"secret", "other"'], "is a list"),
        ([b'"secret","other"'], "is a list"),
        ([b'"secret"other'], "goes on after its closing quote"),
        ([b'"secret";A=1'], "goes on after its closing quote"),
        ([b'"secret";a='], "goes on after its closing quote"),
        ([b'"secret\xc3\xa9"'], "other than visible ASCII and spaces"),
        ([b'"secret\r\n"'], "other than visible ASCII and spaces"),
        ([b"secret\x00"], "other than visible ASCII"),
        ([b"secret\n"], "other than visible ASCII"),
        ([b'"secret"\n'], "goes on after its closing quote"),
        ([b"secret" * 43], "has 258 characters and may have 255"),
    ],
)
def test_what_is_no_key_is_refused_by_its_fault_and_with_an_example(lines: list[bytes], reason: str) -> None:
    with pytest.raises(BadIdempotencyKey, match=re.escape(reason)) as refused:
        parse_idempotency_key(lines)
    assert "secret" not in str(refused.value)
    assert f'right would be Idempotency-Key: "{UUID}"' in str(refused.value)


def test_a_bare_token_counts_in_compatible_mode_only() -> None:
    with pytest.raises(InvalidInput, match="must stand in double quotes"):
        parse_idempotency_key([UUID.encode()], compat=False)


def test_the_length_is_that_of_the_key_not_of_its_spelling() -> None:
    assert parse_idempotency_key([quoted('"' * 255)]) == '"' * 255
    with pytest.raises(BadIdempotencyKey, match="has 256 characters"):
        parse_idempotency_key([quoted("x" * 256)])
    with pytest.raises(BadIdempotencyKey, match="has 9 characters and may have 8"):
        parse_idempotency_key([b"123456789"], most=8)


def test_a_grammar_of_the_application_holds_for_the_whole_key() -> None:
    pattern = re.compile("[0-9]{4}")
    assert parse_idempotency_key([b'"1234"'], pattern=pattern) == "1234"
    with pytest.raises(BadIdempotencyKey, match=r"does not match \[0-9\]\{4\}") as refused:
        parse_idempotency_key([b'"12345"'], pattern=pattern)
    assert "12345" not in str(refused.value)


def test_the_message_names_the_header_that_the_application_chose() -> None:
    with pytest.raises(BadIdempotencyKey, match=r'^X-Request-Key: .* right would be X-Request-Key: "') as refused:
        parse_idempotency_key([b'"'], header="X-Request-Key")
    assert refused.value.field == "X-Request-Key"
