"""What the README shows is what the examples do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n# (examples/\w+\.py)\n(.*?)^```", README, re.M | re.S)


def test_the_readme_shows_examples() -> None:
    """The first chain, a stream, a tool, a schema."""
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize(("file", "code"), BLOCKS, ids=[file for file, _ in BLOCKS])
def test_block(file: str, code: str) -> None:
    """Each line stands in the example, in this order."""
    lines = iter((ROOT / file).read_text().splitlines())
    shown = [line.strip() for line in code.splitlines() if line.strip()]
    for line in shown:
        assert any(line == other.strip() for other in lines), f"not in {file}, or not there: {line}"


def test_blocks_one_after_the_other() -> None:
    """As a newcomer pastes them, in one interpreter."""
    section = README.partition("## In LangChain\n")[2].partition("\n## ")[0]
    code = re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)
    assert len(code) == len(BLOCKS)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in ("(a) 7600", "Reply: ", "tool: (a) 7600", "seats=12", "'seats': 12"):
        assert word in done.stdout
