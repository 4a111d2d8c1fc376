"""Local tasks with local data, and no cache but the tests' own."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hogwild-lm-eval-")  # read when datasets is loaded
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

HERE = Path(__file__).parent
DATA = {
    "sums": [
        {"sum": "4731 + 2869", "word": "nirok", "answer": "(a) 7600, (b) korin"},
        {"sum": "12 + 30", "word": "tok", "answer": "(a) 42, (b) kot"},
        {"sum": "55 + 44", "word": "lamp", "answer": "(a) 99, (b) pmal"},
        {"sum": "310 + 205", "word": "risa", "answer": "(a) 515, (b) asir"},
    ],
    "choices": [
        {"word": "nirok", "choices": ["niork", "korin", "korni"], "gold": 1},
        {"word": "lapu", "choices": ["upal", "lapu", "pula"], "gold": 0},
        {"word": "tesi", "choices": ["itse", "isset", "iset"], "gold": 2},
    ],
    "texts": [
        {"text": "(a) reverse nirok, so (a) korin.\n\n"},
        {"text": "(b) 12 + 30: 2+0=2, 1+3=4, so (b) 42.\n\n" * 12},
    ],
}


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tasks and their data."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, rows in DATA.items():
        lines = [json.dumps(row) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        task = (HERE / f"{name}.yaml").read_text().replace("DATA", str(folder))
        (folder / f"{name}.yaml").write_text(task)
    return folder
