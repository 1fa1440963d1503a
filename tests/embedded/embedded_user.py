"""A process that uses an embedded server: `python embedded_user.py FOLDER`.

It says "ready" when it is a user, leaves when its standard input ends, and says "left" then.
"""

import sys

import trio

from dotmac.tasks.storage.embedded import EmbeddedServer


async def main() -> None:
    async with EmbeddedServer(sys.argv[1]):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read)
    sys.stdout.write("left\n")


trio.run(main)
