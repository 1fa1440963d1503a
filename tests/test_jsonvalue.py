"""Exactly JSON gets in, unchanged; what does not is named by its path."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import uuid
from enum import IntEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from pydantic import BaseModel

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.jsonvalue import check_json, copy_json, decode, encode, result_json
from saga.json_values import values


class Colour(IntEnum):
    RED = 1


def _nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def _same(left: Any, right: Any) -> bool:
    """Equal in value and in type: 1, 1.0 and True are three different things."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


@given(values)
def test_json_is_accepted_and_comes_back_as_it_was(value: Any) -> None:
    check_json(value, "parameters")
    assert _same(decode(encode(value)), value)


@given(values)
def test_a_copy_is_equal_and_shares_nothing_that_can_change(value: Any) -> None:
    copied = copy_json(value)
    assert _same(copied, value)
    if isinstance(value, list | dict):
        assert copied is not value


def test_a_copy_is_deep() -> None:
    original = {"a": [{"b": 1}]}
    copy_json(original)["a"][0]["b"] = 2
    assert original == {"a": [{"b": 1}]}


@pytest.mark.parametrize(
    "value", [2**64 - 1, -(2**63), 5e-324, -0.0, "\U0001f600", "\x00", "ü", {"": {}}, [[]], _nested(100)]
)
def test_the_edges_of_json_are_accepted(value: Any) -> None:
    check_json(value, "parameters")
    assert _same(decode(encode(value)), value)


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"when": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)}, "p.when", "datetime.datetime"),
        ([1, {2}], "p[1]", "builtins.set"),
        ({"a": (1,)}, "p.a", "builtins.tuple"),
        ({"a": b"x"}, "p.a", "builtins.bytes"),
        ({"a": object}, "p.a", "builtins.type"),
        (Colour.RED, "p", "Colour"),
        ({"a": [0, {"b": float("nan")}]}, "p.a[1].b", "nan is not a JSON number"),
        (float("inf"), "p", "inf"),
        (-float("inf"), "p", "-inf"),
        ({"a": 2**64}, "p.a", "64 bits"),
        ({"a": -(2**63) - 1}, "p.a", "64 bits"),
        ({"a": 10**5000}, "p.a", "64 bits"),
        ({1: "a"}, "p", "the key 1 is not a string"),
        ({"a": {None: 1}}, "p.a", "the key None"),
        ({"a": ["\ud800"]}, "p.a[0]", "surrogate"),
        ({"a": {"\udfff": 1}}, "p.a", "not a string of characters"),
        (_nested(101), "p" + "[0]" * 100, "deeper than 100"),
    ],
)
def test_what_is_not_json_is_refused_by_its_path(value: Any, path: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_json(value, "p")
    assert refused.value.field == path
    assert reason in refused.value.reason


def test_a_value_that_contains_itself_is_refused() -> None:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    with pytest.raises(InvalidInput, match="contains itself"):
        check_json(value, "p")


def test_a_key_that_cannot_be_printed_is_shown_escaped() -> None:
    with pytest.raises(InvalidInput) as refused:
        check_json({"\ud800": 1}, "p")
    assert str(refused.value).isascii()


class Label(str):
    __slots__ = ()


class Number(int):
    pass


class Amount(float):
    pass


def test_the_codec_takes_derived_strings_and_numbers_for_what_they_are_and_nothing_else() -> None:
    assert encode([Label("é"), Number(3), Amount(0.5)]) == '["é",3,0.5]'.encode()
    with pytest.raises(TypeError, match="a value of type object is not JSON"):
        encode([object()])


@dataclasses.dataclass
class Seat:
    row: int
    letter: str


class Ticket(msgspec.Struct):
    seat: Seat


class Guest(BaseModel):
    born: datetime.date


@dataclasses.dataclass
class Party:
    guests: list[Guest]


def _ring() -> list[Any]:
    ring: list[Any] = [(1,)]
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({"a": [1, None]}, {"a": [1, None]}),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ({"at": datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)}, {"at": "2026-01-02T03:04:00Z"}),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.10"), "1.10"),
        (Colour.RED, 1),
        ((1, {2}), [1, [2]]),
        ([b"ab"], ["YWI="]),
        (Ticket(Seat(12, "A")), {"seat": {"row": 12, "letter": "A"}}),
        (Party([Guest(born=datetime.date(2026, 1, 2))]), {"guests": [{"born": "2026-01-02"}]}),
        ({1: "one"}, {"1": "one"}),
        ([Number(3), Label("x")], [3, "x"]),
    ],
)
def test_a_result_is_stored_in_its_one_json_form(value: Any, stored: Any) -> None:
    assert _same(decode(result_json(value)), stored)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "has no JSON form: a value of type object is not JSON"),
        (float("nan"), "nan is not a JSON number"),
        ({"a": (float("inf"),)}, "inf is not a JSON number"),
        ((_nested(101),), "deeper than 100"),
        (_ring(), "contains itself"),
        ((2**70,), "64 bits"),
        ("x" * 99, "has 101 bytes of JSON; at most 100"),
    ],
)
def test_a_result_without_a_json_form_is_refused_by_its_field(value: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refused:
        result_json(value, 100)
    assert refused.value.field.startswith("result")


def test_the_part_of_a_result_without_a_json_form_is_named_by_its_path() -> None:
    for value, path in (
        ({"when": object()}, "result.when"),
        (({"a": [object()]},), "result[0].a[0]"),
        ({"x": {object(): 1}}, "result.x"),
    ):
        with pytest.raises(InvalidInput, match="JSON form") as refused:
            result_json(value)
        assert refused.value.field == path


def test_a_result_with_two_keys_of_one_json_form_is_refused_by_its_path() -> None:
    with pytest.raises(InvalidInput, match="two keys have the same JSON form") as refused:
        result_json({"counts": {1: "one", "1": "uno"}})
    assert refused.value.field == "result.counts"


def test_a_result_whose_class_raises_is_refused_by_name() -> None:
    class Hostile:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("not you")

        @__class__.setter
        def __class__(self, value: Any) -> None: ...

    with pytest.raises(InvalidInput, match="result: cannot be read: RuntimeError"):
        result_json(Hostile())
