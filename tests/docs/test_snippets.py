"""Runs every Python block of the documents.

The rule: a block that calls ``trio.run(`` or ``asyncio.run(``, or begins ``with manager.sync:``, at the left margin is
a program and runs in a process of its own; a text block right after it is its output. All other Python blocks of one
``##`` section are parts of one program: they run one after the other, in one namespace, inside one trio run, with
`await` at top level, as the README says. Managers that they leave running are stopped at the end. Sections that name a
Redis server get a real one, in place of the address they name, and are marked `redis`.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import trio

from docs.documents import Block, all_blocks, parse
from dotmac.tasks import BackgroundOperationsManager

_REDIS = "redis://localhost:6379/0"
_PATIENCE = 60

BLOCKS = all_blocks()
SCRIPTS = [block for block in BLOCKS if block.is_script]
PARTS = [block for block in BLOCKS if block.language == "python" and not block.is_script]


def sections() -> list[Any]:
    groups = groupby(PARTS, key=lambda block: (block.document, block.section))
    found = []
    for (document, section), blocks in groups:
        parts = list(blocks)
        marks = [pytest.mark.redis] if any(_REDIS in part.code for part in parts) else []
        found.append(pytest.param(parts, id=f"{document}:{section}", marks=marks))
    return found


@pytest.mark.parametrize("parts", sections())
async def test_a_section_runs_from_top_to_bottom(
    parts: list[Block], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.chdir(tmp_path)  # some make files where they run
    namespace: dict[str, Any] = {"__name__": "snippet"}
    managers: dict[int, BackgroundOperationsManager] = {}
    with trio.fail_after(_PATIENCE):
        for part in parts:
            code = part.code
            if _REDIS in code:
                code = code.replace(_REDIS, request.getfixturevalue("redis_url"))
            await run(part, code, namespace)
            managers |= {id(v): v for v in namespace.values() if isinstance(v, BackgroundOperationsManager)}
        for manager in managers.values():
            await manager.stop()


async def run(part: Block, code: str, namespace: dict[str, Any]) -> None:
    # Blank lines in front let a traceback show the document's own line numbers.
    source = "\n" * (part.line - 1) + code
    compiled = compile(source, part.document, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, namespace)  # noqa: S307 - the documents are ours
    if inspect.iscoroutine(result):
        await result


@pytest.fixture(scope="session")
def redis_url() -> Any:
    from support.servers import standalone  # noqa: PLC0415 - only documents that name a server need one

    with standalone("appendonly yes") as server:
        yield server.url


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.where)
def test_a_program_runs_and_prints_what_the_document_says(script: Block) -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script.code],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for output in (block for block in BLOCKS if block.output_of == script):
        assert ended.stdout == output.code, output.where


def test_the_readme_has_programs_and_parts() -> None:
    assert SCRIPTS
    assert len(PARTS) > 10
    assert any(block.output_of for block in BLOCKS)


@pytest.mark.parametrize(
    "text",
    [
        "```js\nlet x\n```\n",
        "```\nno language\n```\n",
        "text\n\n    indented()\n",
        "```python\nopen\n",
        "  ```sh\nls\n  ```\n",
    ],
)
def test_a_block_that_nothing_would_run_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"d\.md:"):
        parse("d.md", text)
