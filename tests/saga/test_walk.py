"""Everything that can happen to a saga, exhaustively for small ones and at random for larger ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dotmac.tasks.models import OperationStatus
from saga.explorer import Walk, explore
from saga.model import Budget, begin, choices, saga

ONE = ("C", "N", "P")
TWO = ("CC", "CN", "NC", "NN", "CP", "NP", "PR")
THREE = ("CCC", "CNC", "NCN", "CCP", "CPR", "NPR", "PRR")
ALL_CHOICES = frozenset(
    {
        *("record", "append", "wait", "deadline passed", "died before an append", "died after an append"),
        *("cancelled while pending", "cancelled while in_progress", "cancelled while compensating"),
        *("cancelled in forward, happened", "cancelled in forward, did not happen"),
        *("forward out of time, happened", "forward out of time, did not happen"),
        *("resumed on", "resumed on, all goes well", "resumed backwards", "resumed backwards, all goes well"),
        *("resumed from where it stopped", "resumed from where it stopped, all goes well"),
        *("resumed from an earlier step", "resumed from an earlier step, all goes well"),
        *(f"{way} {how}" for way in ("forward", "undo") for how in ("succeeds", "refused", "finally refused")),
        *(f"{way} timed out, {how}" for way in ("forward", "undo") for how in ("happened", "did not happen")),
        *(f"stopped in {way}, {how}" for way in ("forward", "undo") for how in ("happened", "did not happen")),
        *(f"died in {way}, {how}" for way in ("forward", "undo") for how in ("happened", "did not happen")),
    }
)
GOOD_ENDS = {OperationStatus.COMPLETED, OperationStatus.COMPENSATED}


@pytest.mark.parametrize("max_retries", [0, 1])
@pytest.mark.parametrize("kinds", ONE)
def test_every_way_of_a_saga_of_one_step(kinds: str, max_retries: int) -> None:
    walk = explore(saga(kinds, max_retries=max_retries), Budget(deaths=2, cancels=1, resumes=1))
    assert set(walk.calm_ends) <= GOOD_ENDS
    assert set(walk.ends) >= GOOD_ENDS


@pytest.mark.parametrize(("max_retries", "deaths"), [(0, 2), (1, 1)])
@pytest.mark.parametrize("kinds", TWO)
def test_every_way_of_a_saga_of_two_steps(kinds: str, max_retries: int, deaths: int) -> None:
    walk = explore(saga(kinds, max_retries=max_retries), Budget(deaths=deaths, cancels=1, resumes=1))
    assert set(walk.calm_ends) <= GOOD_ENDS
    assert set(walk.ends) >= GOOD_ENDS


@pytest.mark.parametrize("kinds", THREE)
def test_every_way_of_a_saga_of_three_steps(kinds: str) -> None:
    walk = explore(saga(kinds), Budget(deaths=1, cancels=1))
    assert set(walk.ends) >= GOOD_ENDS


@pytest.mark.parametrize("kinds", ["CCC", "NCC", "PRR"])
def test_every_way_of_a_saga_of_three_steps_that_an_operator_resumes(kinds: str) -> None:
    walk = explore(saga(kinds, timeout=None), Budget(resumes=1))
    assert set(walk.calm_ends) == GOOD_ENDS
    assert "resumed from an earlier step, all goes well" in walk.taken


def test_a_saga_without_a_deadline_ends_as_well() -> None:
    walk = explore(saga("CP", max_retries=1, timeout=None), Budget(deaths=1, cancels=1, resumes=1))
    assert set(walk.ends) >= GOOD_ENDS
    assert "deadline passed" not in walk.taken


def test_a_deadline_that_is_shorter_than_the_back_off_ends_the_waiting() -> None:
    walk = explore(saga("CC", max_retries=1, timeout=0.5), Budget(deaths=1))
    assert set(walk.ends) >= GOOD_ENDS


def test_the_walk_takes_every_choice() -> None:
    walk = Walk()
    for kinds in ("C", "CP"):
        explore(saga(kinds, max_retries=1), Budget(deaths=1, stops=1, cancels=1, resumes=1), walk)
    assert walk.taken == ALL_CHOICES


@pytest.mark.slow
@pytest.mark.parametrize("max_retries", [0, 1])
@pytest.mark.parametrize("kinds", [*TWO, *THREE])
def test_every_way_with_two_deaths_a_cancel_and_a_resumption(kinds: str, max_retries: int) -> None:
    walk = explore(saga(kinds, max_retries=max_retries), Budget(deaths=2, cancels=1, resumes=1))
    assert set(walk.calm_ends) <= GOOD_ENDS
    assert set(walk.ends) >= GOOD_ENDS


kinds_of_sagas = st.text("CN", min_size=1, max_size=8) | st.builds(
    lambda before, after: f"{before}P{after}", st.text("CN", max_size=4), st.text("R", max_size=3)
)


@settings(max_examples=200)
@given(
    kinds=kinds_of_sagas,
    max_retries=st.integers(0, 3),
    timeout=st.sampled_from([None, 0.5, 2.5, 1000.0]),
    left=st.builds(
        Budget, deaths=st.integers(0, 6), stops=st.integers(0, 3), cancels=st.integers(0, 2), resumes=st.integers(0, 2)
    ),
    picks=st.lists(st.integers(0, 15), max_size=120),
)
def test_a_random_life_of_a_random_saga(
    kinds: str, max_retries: int, timeout: float | None, left: Budget, picks: list[int]
) -> None:
    node = begin(saga(kinds, max_retries=max_retries, timeout=timeout), left)
    # Per step and direction at most max_retries + 1 attempts and a few facts each, and again after each resumption.
    bound = (
        20 + (left.resumes + 1) * len(kinds) * 2 * (max_retries + 1) * 6 + 6 * (left.deaths + left.stops) + left.cancels
    )
    following = iter(picks)
    for _ in range(bound):
        ways = choices(node)
        if not ways:
            return
        node = ways[next(following, 0) % len(ways)][1]
    pytest.fail(f"not over after {bound} moves")
