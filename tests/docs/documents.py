"""Reads the code blocks of the documents: README.md and docs/*.md.

Every block has to be of a language that some test runs or checks, so nothing printed there can be wrong unnoticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELL = {"sh", "bash"}
LANGUAGES = {"python", "text"} | SHELL
_STARTS = re.compile(r"^(trio\.run\(|asyncio\.run\(|uvloop\.run\(|with manager\.sync:)", re.MULTILINE)
_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*(\S*)")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: Number of the first line of code, from 1.
        section: The ``##`` heading above it.
        output_of: The script whose output this is, for a text block right after one.
    """

    document: str
    line: int
    language: str
    section: str
    code: str
    output_of: Block | None = None

    @property
    def where(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def is_script(self) -> bool:
        """Whether it is a program of its own rather than a part of one."""
        return self.language == "python" and _STARTS.search(self.code) is not None


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def all_blocks() -> list[Block]:
    return [block for path in documents() for block in parse(path.relative_to(ROOT).as_posix(), path.read_text())]


def parse(document: str, text: str) -> list[Block]:
    """The blocks of one document.

    Raises:
        ValueError: Code stands in it that no test would see: an indented block, an unknown language, an open fence.
    """
    blocks: list[Block] = []
    section, opened, code = "", None, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is not None:
            first, language, mark = opened
            if line.strip() == mark:
                blocks.append(Block(document, first, language, section, "\n".join(code) + "\n"))
                opened = None
            else:
                code.append(line)
        elif fence:
            if fence[1] or fence[3] not in LANGUAGES:
                raise ValueError(f"{document}:{number}: no test runs a block that opens with {line!r}")
            opened, code = (number + 1, fence[3], fence[2]), []
        elif line.startswith("## "):
            section = line.removeprefix("## ").strip()
        elif line.startswith(("    ", "\t", "<pre", "<code")):
            raise ValueError(f"{document}:{number}: code outside a fence, which no test sees")
    if opened is not None:
        raise ValueError(f"{document}:{opened[0]}: the block is never closed")
    return _with_outputs(blocks)


def _with_outputs(blocks: list[Block]) -> list[Block]:
    paired = blocks[:1]
    for before, block in pairwise(blocks):
        is_output = block.language == "text" and before.is_script and before.section == block.section
        paired.append(Block(**{**vars(block), "output_of": before}) if is_output else block)
    return paired


def table(heading: str) -> list[list[str]]:
    """The rows of the README's table whose first column has this heading, without Markdown's quotes."""
    lines = iter((ROOT / "README.md").read_text().splitlines())
    for line in lines:
        if line.startswith(f"| {heading} |"):
            break
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows[1:]


def names_in(cell: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`]+)`", cell)
