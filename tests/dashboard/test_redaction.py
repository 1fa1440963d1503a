"""What people must not see is hidden by the name of its field, at any depth."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.service.redaction import DEFAULT_FIELDS, HIDDEN, Redaction


@pytest.mark.parametrize(
    "name",
    ["password", "Password", "db_password", "accessToken", "X-Auth-Token", "API-Key", "apikey", "card_number", "CVV"],
)
def test_a_field_is_hidden_whatever_its_spelling(name: str) -> None:
    for value in ("s", 7, True, ["s"], {"a": "s"}, ""):
        assert Redaction()({"outer": [{name: value}]}) == {"outer": [{name: HIDDEN}]}


def test_everything_else_stays() -> None:
    plain = {"to": "a@b", "cents": 3, "none": None, "list": [1, {"x": None}], "path": "/token"}
    assert Redaction()(plain) == plain


def test_nothing_and_references_are_no_secrets() -> None:
    reference = {"$ref": "steps.a.result.token"}
    assert Redaction()({"token": None, "secret": reference}) == {"token": None, "secret": reference}


def test_a_literal_and_a_false_reference_hide_as_any_value() -> None:
    for value in (
        {"$literal": {"token": {"$ref": "steps.s3cr3t"}}},
        {"token": {"$ref": "s3cr3t"}},
        {"token": {"$ref": 7}},
    ):
        assert "HIDDEN" in repr(Redaction()(value)).replace(HIDDEN, "HIDDEN")
        assert "s3cr3t" not in repr(Redaction()(value))


def test_a_stored_response_hides_what_it_answered() -> None:
    headers = [["x-auth-token", "s3cr3t"], ["content-type", "application/json"]]
    stored = {"v": 1, "status": 200, "headers": headers, "text": '{"card_token":"s3cr3t","order":7}'}
    seen = Redaction()({"result": stored})["result"]
    assert seen["headers"] == [["x-auth-token", HIDDEN], ["content-type", "application/json"]]
    assert seen["text"] == f'{{"card_token":"{HIDDEN}","order":7}}'
    encoded = {"v": 1, "status": 200, "headers": [], "base64": "czNjcjN0"}
    assert Redaction()(encoded) == encoded | {"base64": HIDDEN}


@pytest.mark.parametrize("text", ["[", "{x}", '{"order": 7}', "[1, 2]", "token", '"token"', '{"token":null}'])
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert Redaction()({"note": text}) == {"note": text}


def test_json_within_json_is_redacted_and_too_deep_json_hidden() -> None:
    assert Redaction()(r'[{"event": "{\"password\": 1}"}]') == rf'[{{"event":"{{\"password\":\"{HIDDEN}\"}}"}}]'
    assert Redaction()("[" * 100_000 + "]" * 100_000) == HIDDEN


def test_other_fields_can_be_configured() -> None:
    hide = Redaction(["Birth Day", "", "--"])
    assert hide({"birth_day": 1, "password": 2}) == {"birth_day": HIDDEN, "password": 2}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    value=_JSON, name=st.sampled_from(DEFAULT_FIELDS), around=st.lists(st.sampled_from(["list", "dict"]), max_size=4)
)
def test_a_secret_never_shows_and_its_input_is_not_touched(value: Any, name: str, around: list[str]) -> None:
    secret = {name: "s3cr3t", "beside": value}
    wrapped: Any = secret
    for kind in around:
        wrapped = [wrapped] if kind == "list" else {"k": wrapped}
    before = repr(wrapped)
    assert "s3cr3t" not in repr(Redaction()(wrapped))
    assert repr(wrapped) == before
