"""Calls between event loops and threads: into the runtime's trio run from any caller, and out of it into asyncio.

A `RuntimeLoop` is the trio run that receives calls. A `CallerContext` (`AsyncioCaller`, `TrioCaller`) is the caller's
loop. A `CallQueue` carries calls between the two in order, with one wake-up per batch.
"""
