"""Delays stay in their bounds, whatever the policy; a policy that makes no sense is refused by its field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.retry import COMPENSATION_RETRY, RetryPolicy

policies = st.builds(
    lambda first, more, multiplier, jitter, retries: RetryPolicy(
        max_retries=retries, initial_delay=first, max_delay=min(first + more, 1e9), multiplier=multiplier, jitter=jitter
    ),
    st.floats(0, 1e9),
    st.floats(0, 1e9),
    st.floats(1, 1000),
    st.booleans(),
    st.integers(0, 1_000_000),
)
chances = st.floats(0, 1, exclude_max=True)
attempts = st.integers(-5, 10) | st.integers(0, 2**80)


@given(policies, attempts, chances)
def test_a_delay_lies_between_zero_and_its_bound(policy: RetryPolicy, tried: int, chance: float) -> None:
    assert policy.problem() is None
    bound = msgspec.structs.replace(policy, jitter=False).delay(tried, chance)
    assert 0 <= policy.delay(tried, chance) <= bound <= policy.max_delay


@given(policies, st.integers(0, 200), chances)
def test_the_bound_never_shrinks(policy: RetryPolicy, tried: int, chance: float) -> None:
    steady = msgspec.structs.replace(policy, jitter=False)
    assert steady.delay(tried, chance) <= steady.delay(tried + 1, chance)


@given(policies)
def test_a_policy_that_is_accepted_is_read_from_the_journal_as_it_was(policy: RetryPolicy) -> None:
    assert msgspec.json.decode(msgspec.json.encode(policy), type=RetryPolicy) == policy


def test_the_steepest_policy_does_not_overflow() -> None:
    steep = RetryPolicy(initial_delay=1e9, max_delay=1e9, multiplier=1000, jitter=False)
    assert steep.problem() is None
    assert steep.delay(10**9, 0.5) == 1e9
    assert RetryPolicy(initial_delay=0, multiplier=1000).delay(10**9, 0.5) == 0


def test_the_bound_doubles_until_the_cap() -> None:
    policy = RetryPolicy(initial_delay=1.0, max_delay=5.0, jitter=False)
    assert [policy.delay(tried, 0.5) for tried in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_full_jitter_draws_from_zero_to_the_bound() -> None:
    policy = RetryPolicy(initial_delay=8.0)
    assert [policy.delay(1, chance) for chance in (0.0, 0.25, 0.5)] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(("max_retries", "allowed"), [(0, 0), (1, 1), (3, 3)])
def test_there_are_as_many_retries_as_allowed(max_retries: int, allowed: int) -> None:
    policy = RetryPolicy(max_retries=max_retries)
    assert [policy.allows(tried) for tried in range(1, 6)] == [tried <= allowed for tried in range(1, 6)]


def test_the_policies_used_by_default_make_sense() -> None:
    assert RetryPolicy().problem() is None
    assert COMPENSATION_RETRY.problem() is None


_INFINITE, _NAN = float("inf"), float("nan")
NONSENSE: list[dict[str, Any]] = [
    *({"max_retries": value} for value in (-1, 1_000_001, 1.0, True, "3", None)),
    *({"max_delay": value} for value in (-1, 1e10, 10**400, _INFINITE, _NAN, "60", None, True)),
    *({"initial_delay": value} for value in (-0.1, 61.0, _INFINITE, _NAN, "1", None)),
    *({"multiplier": value} for value in (0.5, 1001, _INFINITE, _NAN, "2", None)),
    *({"jitter": value} for value in (1, None, "yes")),
    *({"non_retryable": value} for value in ("ValueError", ["ValueError"], (ValueError,), ("a.B",), ("\ud800",))),
]


@pytest.mark.parametrize("fields", NONSENSE, ids=str)
def test_a_policy_that_makes_no_sense_is_refused_by_its_field(fields: dict[str, Any]) -> None:
    problem = RetryPolicy(**fields).problem()
    assert problem is not None
    assert problem[0] == next(iter(fields))
    assert "must" in problem[1]
