"""JSON texts that mean the same get the same canonical form, and those that do not, do not."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.http.canonical import NotCanonical, canonical_json
from saga.json_values import values


def canonical(text: str, **options: Any) -> bytes:
    return canonical_json(text.encode(), **options)


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        names = list(value)
        chance.shuffle(names)
        return {name: shuffled(value[name], chance) for name in names}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@given(values, st.randoms())
def test_order_space_and_escapes_do_not_matter(value: Any, chance: random.Random) -> None:
    plain = json.dumps(value, ensure_ascii=False)
    other = json.dumps(shuffled(value, chance), indent=3, separators=(" , ", " : "), ensure_ascii=True)
    assert canonical(plain) == canonical(other)


def typed(value: Any) -> Any:
    """What Python takes for equal but JSON does not (true and 1) made different; 1 and 1.0 are one number."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return ("boolean", value) if isinstance(value, bool) else value


@given(values, values)
def test_equal_forms_are_equal_values(left: Any, right: Any) -> None:
    assert (canonical(json.dumps(left)) == canonical(json.dumps(right))) == (typed(left) == typed(right))


def exact(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


@given(values)
def test_a_canonical_form_is_json_that_says_the_same(value: Any) -> None:
    text = json.dumps(value)
    assert exact(canonical(text)) == exact(text)
    assert canonical_json(canonical(text)) == canonical(text)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1", "1.0"),
        ("1", "10e-1"),
        ("100", "1E+2"),
        ("0", "-0.0"),
        ("0", "0e99"),
        ("-1.50", "-15e-1"),
        ("1e5000", "10e4999"),
        ('"ü"', '"\\u00fc"'),
        ('"\U0001f600"', '"\\ud83d\\ude00"'),
        ('"/"', '"\\/"'),
        ("\ufeff1", "1"),
        ('{"a":1,"b":2}', '{ "b" : 2, "a" : 1 }'),
    ],
)
def test_one_meaning_one_form(left: str, right: str) -> None:
    assert canonical(left) == canonical(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1", "-1"),
        ("1", '"1"'),
        ("1", '"1e0"'),
        ("1", "true"),
        ("0", "false"),
        ("null", "0"),
        ("12", "21"),
        ("9007199254740993", "9007199254740992"),  # one float
        ("0.1", "0.1000000000000000055511151231257827"),  # one float
        ("[]", "{}"),
        ("[1,2]", "[2,1]"),
        ("[[1],2]", "[[1,2]]"),
        ('{"a":null}', "{}"),
        ('"é"', '"e\u0301"'),  # two sequences of characters that look the same
        ('"\\ud800"', '"\\udfff"'),
    ],
)
def test_two_meanings_two_forms(left: str, right: str) -> None:
    assert canonical(left) != canonical(right)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"nonsense",
        b"NaN",
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 1}',
        b'[{"a": 1, "\\u0061": 2}]',
        b'"\xff"',
        b'"\xed\xa0\x80"',  # half a surrogate pair, which no UTF-8 has
        b'"a\nb"',
        b"1e999999999999999999999",
        b"[" * 102 + b"]" * 102,
        b"[" * 100_000 + b"]" * 100_000,
        "1".encode("utf-16"),
    ],
)
def test_what_has_no_single_meaning_has_no_form(text: bytes) -> None:
    with pytest.raises(NotCanonical):
        canonical_json(text)


def test_depth_is_limited_where_no_stack_decides() -> None:
    assert canonical("[" * 100 + "]" * 100)
    with pytest.raises(NotCanonical, match="nested too deeply"):
        canonical('[{"a":' * 51 + "1" + "}]" * 51)


def test_chosen_members_are_all_that_counts() -> None:
    chosen = ("amount", "order.lines.sku")
    one = '{"amount": 5, "note": "a", "order": {"id": 1, "lines": [{"sku": "x", "n": 1}, {"sku": "y"}]}}'
    same = '{"amount": 5.0, "note": "b", "order": {"id": 2, "lines": [{"sku": "x", "n": 2}, {"sku": "y"}]}}'
    other = '{"amount": 5, "note": "a", "order": {"id": 1, "lines": [{"sku": "x", "n": 1}, {"sku": "z"}]}}'
    assert canonical(one, chosen=chosen) == canonical(same, chosen=chosen)
    assert canonical(one, chosen=chosen) != canonical(other, chosen=chosen)


def test_a_chosen_member_that_is_missing_is_not_null() -> None:
    assert canonical('{"a": null, "b": 1}', chosen=("a", "b")) != canonical('{"b": 1}', chosen=("a", "b"))


def test_an_item_without_the_chosen_member_keeps_its_place() -> None:
    one, other = '[{"a": 1}, {"b": 2}]', '[{"b": 2}, {"a": 1}]'
    assert canonical(one, chosen=("a",)) != canonical(other, chosen=("a",))


@pytest.mark.parametrize("text", ['{"b": 1}', "[1]", "[]", "5", '{"a": {"c": 1}}'])
def test_where_nothing_chosen_is_there_everything_counts(text: str) -> None:
    assert canonical(text, chosen=("a.b",)) == canonical(text)


def test_ignored_members_do_not_count() -> None:
    ignored = ("sent_at", "items.trace")
    one = '{"sent_at": 1, "items": [{"trace": "x", "n": 1}, 7]}'
    same = '{"sent_at": {"a": 2}, "items": [{"n": 1}, 7]}'
    assert canonical(one, ignored=ignored) == canonical(same, ignored=ignored)
    assert canonical(one, ignored=ignored) != canonical(one.replace("7", "8"), ignored=ignored)


def test_of_a_chosen_member_a_part_can_be_ignored() -> None:
    options = {"chosen": ("a",), "ignored": ("a.x",)}
    assert canonical('{"a": {"x": 1, "y": 2}}', **options) == canonical('{"a": {"x": 3, "y": 2}, "b": 1}', **options)
