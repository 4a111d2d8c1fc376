"""The Python blocks of README.md and docs/: they show the examples, run, and use names that exist.

A block that names an example in its first line (`# examples/quickstart.py`) shows lines of it. Such
blocks are run, and so are those under the comment `<!-- runnable -->`: all of a page one after the
other, as a reader pastes them.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?P<mark>^ *<!-- runnable -->\n+)?"
    r"^(?P<indent> *)```python\b[^\n]*\n(?P<code>.*?)^(?P=indent)```",
    re.M | re.S,
)


class Block(NamedTuple):
    """A Python block of a page.

    Attributes:
        page: The page's path.
        code: The block's text.
        example: The example that it shows, or nothing.
        runnable: Whether it is run.
    """

    page: str
    code: str
    example: str
    runnable: bool


def blocks_of(page: Path) -> list[Block]:
    """The Python blocks of a page."""
    blocks = []
    for match in FENCE.finditer(page.read_text()):
        code = dedent(match["code"])
        named = re.match(r"# (examples/\w+\.py)\n", code)
        example = named[1] if named else ""
        runnable = bool(example or match["mark"])
        blocks.append(Block(str(page.relative_to(ROOT)), code, example, runnable))
    return blocks


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHOWN = [block for block in BLOCKS if block.example]
RUNNABLE = sorted({block.page for block in BLOCKS if block.runnable})


def name_of(block: Block) -> str:
    """A block's name among the tests."""
    return f"{block.page}:{block.example or BLOCKS.index(block)}"


@cache
def output_of(page: str) -> str:
    """What a page's runnable blocks print, in one interpreter."""
    code = "\n".join(block.code for block in BLOCKS if block.page == page and block.runnable)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pages_show_examples() -> None:
    """The first chain, a stream, a tool, an agent, a schema."""
    assert len({block.example for block in SHOWN}) >= 5


@pytest.mark.parametrize("block", SHOWN, ids=name_of)
def test_shown_example(block: Block) -> None:
    """Each line of the block is in the example, in this order."""
    lines = iter((ROOT / block.example).read_text().splitlines())
    for line in filter(None, map(str.strip, block.code.splitlines()[1:])):
        missing = f"not in {block.example}, or not there: {line}"
        assert any(line == other.strip() for other in lines), missing


@pytest.mark.parametrize("page", RUNNABLE)
def test_page_runs(page: str) -> None:
    """Its blocks run one after the other, and print something."""
    assert output_of(page).strip()


def test_results() -> None:
    """The blocks solve the tasks, stream, call tools and fit schemas."""
    output = "\n".join(map(output_of, RUNNABLE))
    for text in ("(a) 7600", "Reply: ", "tool: (a) 75, (b) korin", "seats=12", "'seats': 12"):
        assert text in output


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_names_exist(block: Block) -> None:
    """A block is valid Python, and imports only what is there."""
    tree = compile(
        block.code, block.page, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    assert isinstance(tree, ast.Module)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("hogwild_agents"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"no {alias.name} in {node.module}"
