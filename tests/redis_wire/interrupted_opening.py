"""A program that Ctrl-C hits while its storage opens, at each point in turn: `python interrupted_opening.py URL`.

It says how often the program's own task got it. One that waits for ever says nothing.
"""

import signal
import sys
from types import FrameType

import trio

from dotmac.tasks.storage.redis import RedisStorage

POINTS = range(300, 3000, 13)  # calls of functions in C, from before the loop starts until after the handshake


def ctrl_c_at(point: int) -> None:
    left = point

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal left
        left -= event in {"c_call", "c_return"}
        if left < 0:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)

    sys.setprofile(count)


async def program(point: int) -> None:
    storage = RedisStorage(sys.argv[1])
    ctrl_c_at(point)
    async with storage.opened():
        sys.setprofile(None)


signal.signal(signal.SIGINT, signal.default_int_handler)
times = 0
for each in POINTS:
    try:
        trio.run(program, each)
    except KeyboardInterrupt:
        times += 1
    finally:
        sys.setprofile(None)
sys.stdout.write(f"{times}\n")
