"""A program that forks while its manager runs; run as a process of its own by `test_forks`."""

from __future__ import annotations

import os
import signal
import sys
import warnings

import pytest

from dotmac.tasks import BackgroundOperationsManager, MemoryStorage, NotStarted
from dotmac.tasks.errors import UsageError

PATIENCE = 20  # seconds; a child that waits for the runtime of its parent would wait for ever


def child(manager: BackgroundOperationsManager) -> None:
    signal.alarm(PATIENCE)
    assert not manager.is_running
    with pytest.raises(NotStarted, match="forked"):
        manager.sync.list_locks()
    with pytest.raises(UsageError, match="forked"):
        manager.sync.start()
    with BackgroundOperationsManager(MemoryStorage()).sync as another:
        assert another.list_locks() == []


def main() -> None:
    manager = BackgroundOperationsManager(MemoryStorage())
    with manager.sync:
        assert manager.sync.list_locks() == []
        forked = os.fork()
        if forked == 0:
            child(manager)
            sys.exit(0)  # out of the block, which stops the manager where it runs
        _, status = os.waitpid(forked, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert manager.sync.list_locks() == []


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
    main()
