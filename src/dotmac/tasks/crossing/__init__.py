"""Calls between threads: into a trio run from wherever somebody awaits or blocks, and out of it into an event loop.

Nothing here knows what is called. A `Home` is the trio run that calls go into; a side (`LoopSide`, `TrioSide`,
`ThreadSide`) is where a caller waits. Between the two, everything travels in a `Mailbag`: in order, and one wake-up for
whatever has gathered.
"""
