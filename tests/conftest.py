"""What every test gets unasked: hooks as they were, and a check that no watch on a storage was left behind."""

from __future__ import annotations

import logging
import signal
import weakref
from collections import Counter
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from dotmac.tasks import metrics
from dotmac.tasks.storage.memory import MemoryStorage

# A deadline for each example, and for their generation, is a timed assertion: it fails beside a busy process.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# A shell that runs us in its background has Ctrl-C ignored, here and in every process that we start: the tests that
# send one would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost, so that these lines come after all other summaries
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """Say which tests were left out, and for want of what."""
    yield
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section("left out", sep="-")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count} test{'s' if count > 1 else ''}: {reason}")


@pytest.fixture(autouse=True)
def _hooks_as_before() -> Iterator[None]:
    """Hooks are registered for the whole process; a test's own end with it."""
    before = {point: list(hooks) for point, hooks in metrics._hooks.items()}
    yield
    for point, hooks in before.items():
        metrics._hooks[point][:] = hooks


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Commands set up logging for the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _no_watch_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A watch that outlives its task is a task's scope that was not left: each leaks memory for ever."""
    made: weakref.WeakSet[MemoryStorage] = weakref.WeakSet()
    plain_init = MemoryStorage.__init__

    def noted_init(storage: MemoryStorage) -> None:
        plain_init(storage)
        made.add(storage)

    monkeypatch.setattr(MemoryStorage, "__init__", noted_init)
    yield
    left = sorted(topic for storage in made for topic in storage._watches)
    assert not left, f"watches were left behind: {left}"


@pytest.fixture(autouse=True)
def hooks_are_taken_out() -> Iterator[None]:
    """A test that leaves a hook behind fails itself, instead of one that happens to run later in its process."""
    before = {point: list(hooks) for point, hooks in metrics._hooks.items()}
    yield
    left = {point: [hook for hook in hooks if hook not in before[point]] for point, hooks in metrics._hooks.items()}
    for point, hooks in left.items():
        for hook in hooks:
            metrics._hooks[point].remove(hook)
    assert not any(left.values())
