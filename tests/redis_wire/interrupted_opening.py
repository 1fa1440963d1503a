"""A program that Ctrl-C hits while its storage opens, at each point in turn: `python interrupted_opening.py URL`.

It says how often the program's own task got it. One that waits for ever says nothing.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import trio

from dotmac.tasks.storage.redis import RedisStorage

POINTS = range(300, 3000, 13)  # calls of functions in C, from before the loop starts until after the handshake


@contextmanager
def ctrl_c_at(point: int) -> Iterator[None]:
    """Before or after a function in C that is called in this thread, whichever task calls it: so many are let by.

    Python's own functions are no such points: what a profiler raises in them passes by their handlers.
    """
    left = point

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal left
        left -= event in {"c_call", "c_return"}
        if left < 0:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


async def program(point: int) -> None:
    storage = RedisStorage(sys.argv[1])
    with ctrl_c_at(point):
        async with storage.opened():
            sys.setprofile(None)


def main() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    times = 0
    for each in POINTS:
        try:
            trio.run(program, each)
        except KeyboardInterrupt:
            times += 1
    sys.stdout.write(f"{times}\n")


if __name__ == "__main__":
    main()
