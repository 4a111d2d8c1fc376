"""What the README shows is what the examples do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```python\n# (examples/\w+\.py)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S
)


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
