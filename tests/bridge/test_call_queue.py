"""A mailbag keeps the order, wakes once for a batch, and loses no call to another's error."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dotmac.tasks.bridge.call_queue import CallQueue


class OtherThread:
    """Comes round when it is told to."""

    def __init__(self) -> None:
        self.wake_ups: list[Callable[[], None]] = []
        self.closed = False

    def wake(self, call: Callable[[], None]) -> None:
        if self.closed:
            raise RuntimeError("closed")
        self.wake_ups.append(call)

    def come_round(self) -> None:
        self.wake_ups.pop(0)()


def test_one_wake_up_for_whatever_has_gathered() -> None:
    other, made = OtherThread(), list[int]()
    bag = CallQueue(other.wake)
    for number in range(5):
        bag.put(lambda number=number: made.append(number))  # type: ignore[misc]
    assert len(other.wake_ups) == 1
    other.come_round()
    assert made == [0, 1, 2, 3, 4]
    bag.put(lambda: made.append(5))
    other.come_round()
    assert made[-1] == 5


def test_what_is_put_in_while_it_is_emptied_is_not_left_lying() -> None:
    other, made = OtherThread(), list[str]()
    bag = CallQueue(other.wake)
    bag.put(lambda: bag.put(lambda: made.append("inner")))
    while other.wake_ups:
        other.come_round()
    assert made == ["inner"]


def test_a_call_that_raises_does_not_take_the_others_with_it() -> None:
    other, made = OtherThread(), list[str]()
    bag = CallQueue(other.wake)
    bag.put(lambda: made.append(str(1 / 0)))
    bag.put(lambda: made.append("other"))
    with pytest.raises(ZeroDivisionError):
        other.come_round()
    assert made == []
    other.come_round()
    assert made == ["other"]


def test_what_cannot_be_delivered_is_told_and_not_kept() -> None:
    other, made = OtherThread(), list[str]()
    bag = CallQueue(other.wake)
    other.closed = True
    with pytest.raises(RuntimeError, match="closed"):
        bag.put(lambda: made.append("lost"))
    other.closed = False
    bag.put(lambda: made.append("found"))
    other.come_round()
    assert made == ["found"]


def test_nobody_relies_on_a_wake_up_that_is_about_to_fail() -> None:
    other, made = OtherThread(), list[str]()
    meanwhile = threading.Thread(target=lambda: bag.put(lambda: made.append("found")))

    def wake(call: Callable[[], None]) -> None:
        if meanwhile.ident is None:
            meanwhile.start()
            meanwhile.join(0.05)  # it can put nothing in before this has failed
            raise RuntimeError("closed")
        other.wake(call)

    bag = CallQueue(wake)
    with pytest.raises(RuntimeError, match="closed"):
        bag.put(lambda: made.append("lost"))
    meanwhile.join()
    other.come_round()
    assert made == ["found"]


def test_threads_that_put_at_the_same_time_lose_nothing() -> None:
    made: list[int] = []
    emptied = threading.Semaphore(0)
    bag = CallQueue(lambda _empty: emptied.release())

    def put() -> None:
        for number in range(1000):
            bag.put(lambda number=number: made.append(number))  # type: ignore[misc]

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(made) < 4000:
        assert emptied.acquire(timeout=30)
        bag.empty()
    for thread in threads:
        thread.join()
    assert sorted(made) == sorted(list(range(1000)) * 4)
