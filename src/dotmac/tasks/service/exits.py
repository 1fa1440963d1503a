"""Exit codes of the commands: what a supervisor, or a script, can tell from them."""

from __future__ import annotations

DRAINED = 0
"""Everything went well; for a service: it was asked to stop, and handed everything over."""

FAILED = 1
"""It failed while it ran; the log says how. Also: `doctor` found a problem, or `serve` an address that is taken."""

USAGE = 2
"""It was called wrongly; nothing was done."""

STORAGE = 3
"""The storage cannot be reached, or would not keep this package's promises."""


def killed_by(signal_number: int) -> int:
    """It was asked to stop a second time, and cut running attempts off: 128 and the signal's number."""
    return 128 + signal_number
