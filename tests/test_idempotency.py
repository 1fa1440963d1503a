"""Equal requests get equal keys in every process, different ones different keys, and tenants never meet."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from dotmac.tasks.errors import InvalidInput
from dotmac.tasks.idempotency import check_name, check_request, derive_key, fingerprint, scope_key
from saga.json_values import objects


@given(objects)
def test_the_order_of_parameters_does_not_matter(parameters: dict[str, Any]) -> None:
    turned = dict(reversed(parameters.items()))
    assert derive_key("t", "u", "op", parameters) == derive_key("t", "u", "op", turned)
    assert fingerprint("u", "op", parameters) == fingerprint("u", "op", turned)


def test_keys_never_change_between_versions_since_they_are_stored() -> None:
    assert derive_key("t", "u", "op", {"a": 1}).startswith("ad3254715da92ec4abddf8af779aa33a")
    assert scope_key("t", "k").startswith("4d3b24b98abfd7cffd0183eba6bb5dfd")
    assert fingerprint("u", "op", {"a": 1}).startswith("af1889b8d72a01ed2b86e03bdb13690e")


@pytest.mark.parametrize(
    "other",
    [
        ("t2", "u", "op", {"a": 1}),
        ("t", "u2", "op", {"a": 1}),
        ("t", None, "op", {"a": 1}),
        ("t", "u", "op2", {"a": 1}),
        ("t", "u", "op", {"a": 2}),
        ("t", "u", "op", {"a": "1"}),
        ("t", "u", "op", {"a": True}),
        ("t", "u", "op", None),
    ],
)
def test_every_part_makes_a_difference(other: tuple[Any, Any, Any, Any]) -> None:
    assert derive_key(*other) != derive_key("t", "u", "op", {"a": 1})


def test_parts_do_not_run_into_each_other() -> None:
    assert derive_key("ab", "c", "op", None) != derive_key("a", "bc", "op", None)
    assert scope_key("ab", "c") != scope_key("a", "bc")


def test_two_tenants_that_chose_the_same_key_do_not_meet() -> None:
    assert scope_key("t", "k") != scope_key("t2", "k")


def test_a_chosen_key_never_meets_a_derived_one() -> None:
    assert scope_key("t", derive_key("t", "u", "op", None)) != derive_key("t", "u", "op", None)


@pytest.mark.parametrize("key", ["", "k" * 256, None, 5])
def test_a_chosen_key_has_1_to_255_characters(key: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        scope_key("t", key)
    assert refused.value.field == "key"


def test_a_request_that_makes_sense_is_accepted() -> None:
    check_request("t", "u", "op", {"a": [1]})
    check_request("t", None, "op", None)


@pytest.mark.parametrize(
    ("request_parts", "field"),
    [
        (("", "u", "op", None), "tenant_id"),
        (("t", "", "op", None), "user_id"),
        (("t", "u", None, None), "operation_type"),
        (("t", "u", "op", [1]), "parameters"),
        (("t", "u", "op", {"a": {1}}), "parameters.a"),
    ],
)
def test_a_request_that_cannot_be_stored_is_refused_by_its_part(request_parts: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_request(*request_parts)
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["", "n" * 256, "a\n", "\ud800", 5, None])
def test_a_name_is_1_to_255_printable_characters(name: Any) -> None:
    with pytest.raises(InvalidInput):
        check_name("name", name)
