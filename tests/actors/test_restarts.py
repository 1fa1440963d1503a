import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dotmac.tasks.actors.restarts import Backoff, RestartIntensity, RestartWindow, Verdict
from dotmac.tasks.errors import InvalidInput

gaps = st.lists(st.floats(0, 20), max_size=40)


def replay(intensity: RestartIntensity, times: list[float]) -> list[Verdict]:
    window, verdicts = intensity.window(), []
    for time in times:
        window, verdict = window.record(time)
        verdicts.append(verdict)
    return verdicts


def running_sum(values: list[float]) -> list[float]:
    total, sums = 0.0, []
    for value in values:
        total += value
        sums.append(total)
    return sums


def test_the_restart_after_the_last_allowed_one_is_refused() -> None:
    assert replay(RestartIntensity(2, 10), [0, 1, 2]) == [Verdict.RESTART, Verdict.RESTART, Verdict.GIVE_UP]


def test_a_restart_no_longer_counts_when_the_window_has_passed() -> None:
    assert replay(RestartIntensity(1, 10), [0, 10, 20]) == [Verdict.RESTART] * 3
    assert replay(RestartIntensity(1, 10), [0, 9.99])[-1] is Verdict.GIVE_UP


def test_no_restarts_allowed_means_giving_up_at_the_first() -> None:
    assert replay(RestartIntensity(0, 1), [5]) == [Verdict.GIVE_UP]


@given(st.integers(0, 5), st.floats(0.1, 30), gaps)
def test_gives_up_exactly_when_more_than_the_allowed_restarts_lie_in_the_window(
    allowed: int, within: float, between: list[float]
) -> None:
    times = running_sum(between)
    for index, verdict in enumerate(replay(RestartIntensity(allowed, within), times)):
        recent = [time for time in times[: index + 1] if time > times[index] - within]
        assert (verdict is Verdict.GIVE_UP) == (len(recent) > allowed)


@given(st.integers(0, 5), gaps)
def test_a_window_stays_small_however_long_it_is_used(allowed: int, between: list[float]) -> None:
    window = RestartIntensity(allowed, 5).window()
    for time in running_sum(between):
        window, _ = window.record(time)
        assert len(window.times) <= allowed + 1


def test_a_window_is_not_changed_by_recording() -> None:
    window = RestartIntensity(1, 1).window()
    window.record(0)
    assert window == RestartWindow(RestartIntensity(1, 1))


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(1, 10))
def test_delays_lie_in_the_upper_half_of_the_exponential_and_under_the_cap(
    failures: int, jitter: float, factor: float
) -> None:
    backoff = Backoff(0.1, factor, 30)
    longest = backoff.delay(failures, 1)
    assert longest / 2 <= backoff.delay(failures, jitter) <= longest <= 30
    assert longest <= backoff.delay(failures + 1, 1)


def test_delays_double_until_the_cap() -> None:
    backoff = Backoff(1, 2, 10)
    assert [backoff.delay(failures, 1) for failures in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert backoff.delay(1, 0) == 0.5


def test_an_overflowing_power_is_cut_to_the_cap_and_no_wait_stays_no_wait() -> None:
    assert Backoff(0.1, 10, 30).delay(10**6, 1) == 30
    assert Backoff(0, 10, 30).delay(10**6, 1) == 0


def test_failures_in_a_row_are_forgotten_after_a_long_life() -> None:
    backoff = Backoff(1, 2, 10)
    assert backoff.failures_in_a_row(3, lived_seconds=9.9) == 4
    assert backoff.failures_in_a_row(3, lived_seconds=10) == 1


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: RestartIntensity(-1, 1), "max_restarts"),
        (lambda: RestartIntensity(1, 0), "within_seconds"),
        (lambda: RestartIntensity(1, math.nan), "within_seconds"),
        (lambda: Backoff(-1), "initial_seconds"),
        (lambda: Backoff(factor=0.5), "factor"),
        (lambda: Backoff(5, 2, 4), "cap_seconds"),
    ],
)
def test_impossible_rules_are_refused_by_name(make: Callable[[], object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.field == field
