"""Every example runs without an error, as a newcomer would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.small_models import folder

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def printed(example: Path, *arguments: str) -> str:
    """Runs a script, which must succeed; returns its output."""
    command = [sys.executable, str(example), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example(example: Path) -> None:
    """The script succeeds and prints something."""
    assert printed(example)


def test_any_model() -> None:
    """The arguments can be a folder, here of a random model, and another question."""
    assert "forward passes" in printed(FOLDER / "hub_model.py", folder(), "Is 91 prime?")


def test_custom_interrupt() -> None:
    """The interrupt and the redundancy check are in the record."""
    output = printed(FOLDER / "custom_interrupt.py")
    assert "half_time to Alice: (Alice, half of the time is over.)" in output
    assert "3 checks, 0 found overlap" in output
