"""Records and transcripts like those of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hogwild_agents.evaluation.records import Record, Transcript

BUDGETS = (32, 64, 96, 128, 192, 256)

TEAMS = {
    "single": (165.0, 1),
    "vote-4": (172.0, 4),
    "hogwild-2": (100.0, 2),
    "hogwild-4": (66.0, 4),
}
"""Passes that a strategy needs for half of the problems, and its workers."""

RUN = {
    "command": "hogwild eval --dataset pocket --limit 100",
    "model": "pocket",
    "dataset": "pocket tasks",
    "versions": {"hogwild-agents": "0.1.0", "torch": "2.13.0"},
}


def records(
    problems: int = 40,
    seeds: int = 2,
    budgets: Sequence[int] = BUDGETS,
    teams: Sequence[str] = tuple(TEAMS),
    failing: float = 0.0,
) -> list[Record]:
    """Teams ahead at tight budgets and equal at large ones."""
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 0.15, problems)
    rows = []
    for name in teams:
        median, workers = TEAMS[name]
        for problem in range(problems):
            for seed in range(seeds):
                needed = median * math.exp(hard[problem] + rng.normal(0, 0.15))
                checks = float(rng.poisson(2))
                error = "the engine stopped" if rng.random() < failing else None
                rows += [
                    record(
                        f"p-{problem:03}",
                        name,
                        budget,
                        None if error else float(needed <= budget),
                        seed=seed,
                        passes=int(min(needed, budget)) + 9,
                        tokens=int(min(needed, budget) * workers),
                        seconds=min(needed, budget) * 0.0061,
                        memory=int(min(needed, budget) * workers * 2048),
                        error=error,
                        measures={"duplicated": 0.02, "balance": 0.9, "checks": checks, "yes": 1.0}
                        if name.startswith("hogwild")
                        else {},
                    )
                    for budget in budgets
                ]
    return rows


def record(
    problem: str, strategy: str, budget: int, score: float | None, *, seed: int = 0, **others: Any
) -> Record:
    """One record."""
    answer = None if score is None else "42"
    return Record(
        problem=problem,
        strategy=strategy,
        seed=seed,
        budget=budget,
        answer=answer,
        score=score,
        **others,
    )


def transcript(
    problem: str = "p-000",
    strategy: str = "hogwild-2",
    text: str = "So (a) 7.",
    seed: int = 0,
    steps: int = 4,
) -> Transcript:
    """A team of two that writes the same text again and again, and is asked at its third step."""
    return Transcript(
        problem=problem,
        question=text,
        truth=text,
        strategy=strategy,
        seed=seed,
        workers=("Alice", "Bob"),
        steps=tuple(
            {
                "worker": ("Alice", "Bob")[n % 2],
                "index": n // 2 + 1,
                "text": text,
                "begun": 20 * (n // 2) + 3 * (n % 2),
                "ended": 20 * (n // 2) + 19,
                "asked": f"Quick check {text}" if n == 2 else "",
                "answer": "no" if n == 2 else "",
            }
            for n in range(steps)
        ),
        reply=text,
        answer=text,
        score=1.0,
    )
