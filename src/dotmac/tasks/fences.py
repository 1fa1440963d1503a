"""Fences at the guarded resource: what makes a lock safe even where a lease was lost without anybody noticing.

A lock cannot keep a holder from writing that was asleep while its lease ran out. The resource can: it remembers the
highest fence it has seen, and refuses a lower one. An equal one is let through, since one holder may write more than
once, and may repeat a write whose answer was lost.

A handler without a lock has a fence too, of its attempt: ``context.fence``.

Here is what is needed for values in Redis (a script, to be sent with whichever client you have) and for rows in SQL
databases (a condition). Both end in `require_current`, which turns "refused" into `LockLost`.
"""

from __future__ import annotations

from .errors import LockLost

FENCED_SET = """
local seen = redis.call('GET', KEYS[2])
if seen and (#seen > #ARGV[1] or (#seen == #ARGV[1] and seen > ARGV[1])) then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
"""Lua: KEYS value and its fence (in one hash slot); ARGV fence, new value; 1 if written, 0 if the fence is too old.

Fences are compared as text, by length and then digit by digit: as numbers of Lua they would be exact only up to 2^53.
"""

FENCE_GUARD = "(fence IS NULL OR fence <= :fence)"
"""For SQL: ``UPDATE … SET …, fence = :fence WHERE … AND`` this. The column `fence` is a 64-bit integer."""


def fenced_set(key: str, value: str | bytes, fence: int) -> tuple[str | bytes | int, ...]:
    """The Redis command that sets `key` unless a newer holder has; for ``client.execute_command(*fenced_set(…))``.

    The highest fence is kept under ``{key}:fence``, or ``key:fence`` where the key has a hash tag of its own.

    Args:
        key: What the lock guards. Written by nobody without a fence.
        value: Its new value.
        fence: Of the lock's holder: ``held.fence``, or ``context.lock_fence`` in a step. Of the attempt, where no lock
            guards the key: ``context.fence``. Always the same kind for one key.

    Returns:
        The command's parts. Its reply goes to `require_current`.
    """
    beside = f"{key}:fence" if "{" in key else f"{{{key}}}:fence"
    return ("EVAL", FENCED_SET, 2, key, beside, fence, value)


def require_current(written: int, what: str, fence: int) -> None:
    """Check that a fenced write was carried out.

    Args:
        written: The reply to `fenced_set`, or the number of rows that an UPDATE with `FENCE_GUARD` changed.
        what: The resource, for the message.
        fence: Of the write.

    Raises:
        LockLost: It was refused: a holder with a higher fence has written meanwhile. Nothing was changed.
    """
    if not written:
        raise LockLost(f"{what} has been written under a higher fence than {fence}: the lock was lost meanwhile")
