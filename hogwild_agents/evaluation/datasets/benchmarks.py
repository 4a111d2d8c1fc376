"""The benchmarks by name. Field names are those of the data sets' cards on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hogwild_agents.evaluation.datasets.adapters import gsm8k, livecodebench, olympiad
from hogwild_agents.evaluation.datasets.schema import RowSchema
from hogwild_agents.evaluation.problems import Problem

_GSM8K = RowSchema("number", "openai/gsm8k", "main", read=gsm8k)
_OLYMPIAD = RowSchema(
    scorer="olympiad",
    hub="Hothan/OlympiadBench",
    config="OE_TO_maths_en_COMP",  # open-ended, text only, English, competitions
    split="train",
    answer="final_answer",
    id="id",
    read=olympiad,
)
_CODE = RowSchema(
    scorer="code",
    hub="livecodebench/code_generation_lite",
    question="question_content",
    id="question_id",
    read=livecodebench,
)

BENCHMARKS: dict[str, RowSchema] = {
    "gsm8k": _GSM8K,
    "gsm8k-x5": replace(_GSM8K, together=5),
    "limo": RowSchema("math", "GAIR/LIMO", split="train"),
    "olympiadbench": _OLYMPIAD,
    "olympiadbench-physics": replace(_OLYMPIAD, config="OE_TO_physics_en_COMP"),
    "math-500": RowSchema("math", "HuggingFaceH4/MATH-500", question="problem", id="unique_id"),
    "aime-2024": RowSchema(
        "math", "HuggingFaceH4/aime_2024", split="train", question="problem", id="id"
    ),
    "aime-2025": RowSchema("math", "math-ai/aime25", question="problem", id="id"),
    "livecodebench-v5": replace(
        _CODE,
        files=("test3.jsonl", "test4.jsonl", "test5.jsonl"),
        dates=("2024-08-01", "2025-02-01"),
    ),
    "livecodebench-v6": replace(_CODE, files=("test6.jsonl",)),
}
"""LiveCodeBench v5 holds the contests of August 2024 to January 2025, the window that the paper and
most model cards report; v6 holds the problems that were new in that release.
"""


def combine(problems: Sequence[Problem]) -> Problem:
    """Several questions in one prompt, worded as in the paper (arXiv 2504.06261, section 4.1)."""
    box = ",".join(f"answer{number}" for number, _ in enumerate(problems, 1))
    tasks = [f" {number}. {problem.question}" for number, problem in enumerate(problems, 1)]
    opening = f"Solve these problems and return comma-separated answers \\boxed{{{box}}} :"
    return Problem(
        id="+".join(problem.id for problem in problems),
        question="\n".join([opening, *tasks]),
        truth=[problem.truth for problem in problems],
        scorer="list",
    )
