"""A base install says what to install for the rest."""

from __future__ import annotations

import subprocess
import sys

import pytest

MISSING = [
    ("redis", "dotmac.tasks.storage.redis", "redis"),
    ("prometheus_client", "dotmac.tasks.observability.prometheus", "service"),
    ("opentelemetry", "dotmac.tasks.observability.opentelemetry", "otel"),
    ("jinja2", "dotmac.tasks.service.app", "service"),
]


@pytest.mark.parametrize(("missing", "module", "extra"), MISSING)
def test_what_is_missing_is_told_together_with_the_command_that_installs_it(
    missing: str, module: str, extra: str
) -> None:
    script = f"import sys; sys.modules[{missing!r}] = None; import {module}"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    told = ended.stderr.strip().splitlines()[-1]
    assert told.startswith("ModuleNotFoundError: ")
    assert missing in told
    assert told.endswith(f"needs more packages: pip install 'dotmac-tasks[{extra}]'")
