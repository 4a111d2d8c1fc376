"""Tiny data sets in the format of the real ones, with invented content."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def json_lines(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> str:
    """Writes rows, of which strings are written as they are. Returns the path."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def cases(*pairs: tuple[str, str], kind: str = "stdin") -> str:
    """Tests as LiveCodeBench has its public ones."""
    return json.dumps([{"input": a, "output": b, "testtype": kind} for a, b in pairs])


def packed(text: str) -> str:
    """Tests as LiveCodeBench has its private ones."""
    return base64.b64encode(zlib.compress(pickle.dumps(text))).decode()


def programming(name: str, day: str = "2024-09-07", **changed: Any) -> dict[str, Any]:
    """A row of livecodebench/code_generation_lite."""
    row = {
        "question_title": "A. Sums",
        "question_content": "Given two integers, print their sum.",
        "platform": "atcoder",
        "question_id": name,
        "contest_id": "abc000",
        "contest_date": f"{day}T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": cases(("1 2\n", "3\n")),
        "private_test_cases": packed(cases(("5 6\n", "11\n"), ("0 0\n", "0\n"))),
        "metadata": "{}",
    }
    return row | changed


def olympic(name: int, **changed: Any) -> dict[str, Any]:
    """A row of Hothan/OlympiadBench."""
    row = {
        "id": name,
        "question": "Find the time of the fall.",
        "solution": ["It falls."],
        "final_answer": ["$2.0$"],
        "context": None,
        "image_1": None,
        "modality": "Text-only",
        "difficulty": "Competition",
        "is_multiple_answer": False,
        "unit": "s",
        "answer_type": "Numerical",
        "error": "1e-1",
        "question_type": "Open-ended",
        "subfield": "Mechanics",
        "subject": "Physics",
        "language": "English",
    }
    return row | changed


def grade_school(answer: int, question: str = "How many?") -> dict[str, Any]:
    """A row of openai/gsm8k."""
    worked = f"He has {answer}-1=<<{answer}-1={answer - 1}>>{answer - 1}, and one more.\n"
    return {"question": question, "answer": f"{worked}#### {answer:,}"}
