"""Import directions: what runs the pocket model does not need what trains it."""

from __future__ import annotations

import re
from pathlib import Path

import hogwild_agents

ROOT = Path(hogwild_agents.__file__).parent
IMPORT = re.compile(
    r"^\s*(from|import) hogwild_agents\.pocket(\.training\b| import .*\btraining\b)", re.M
)


def test_only_the_evaluation_imports_training() -> None:
    """It measures the model on conversations that are made as those in training."""
    files = {file.relative_to(ROOT).as_posix(): file.read_text() for file in ROOT.rglob("*.py")}
    importers = {name for name, text in files.items() if IMPORT.search(text)}
    assert "pocket/training/train.py" in importers
    assert {name for name in importers if not name.startswith("pocket/training/")} == {
        "pocket/evaluate.py"
    }
