"""What is kept of an evaluation: one record per problem, strategy, seed and budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Key(NamedTuple):
    """What a record is about; no two records of a run share one."""

    problem: str
    strategy: str
    seed: int
    budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a strategy came to on a problem within a budget; its fields are the keys of a line.

    Attributes:
        problem: The problem's id.
        strategy: The strategy's name, such as `hogwild-2`.
        seed: Of its sampling.
        budget: Forward passes that it was allowed.
        answer: The text that was marked; None if there was none.
        score: From 0 to 1, where 1 is right; 0 if there was no answer; None after an error.
        passes: Forward passes that it used, those of its final answer among them.
        tokens: Tokens that all its workers drew until then.
        seconds: Wall time until then.
        memory: Most bytes of cache that it held; a prefix shared by its workers counts once.
        error: Why there is no score; None if there is one.
        measures: Of the collaboration, for strategies that have one: shares of 0 to 1 unless they
            say otherwise. `duplicated` (of the work that was done twice), `balance` (1 if all
            workers did as much as each other), `pivots` (count of times a worker changed its plan
            after a check), `checks` (count asked), `yes` (count answered yes).
    """

    problem: str
    strategy: str
    seed: int
    budget: int
    answer: str | None = None
    score: float | None = None
    passes: int = 0
    tokens: int = 0
    seconds: float = 0.0
    memory: int = 0
    error: str | None = None
    measures: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What it is about."""
        return Key(self.problem, self.strategy, self.seed, self.budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """How a strategy went about a problem; one line for each problem, strategy and seed.

    Attributes:
        problem: The problem's id.
        question: What was asked.
        truth: What is right.
        strategy: The strategy's name.
        seed: Of its sampling.
        workers: Names; the columns of the reader.
        steps: What they wrote, in order: `{"worker": name, "index": 3, "text": ..., "begun": pass,
            "ended": pass, "asked": text of an interrupt or "", "answer": how it was answered}`.
        reply: What was said in the end.
        answer: The answer at the largest budget.
        score: Of that.
    """

    problem: str
    question: str
    truth: Any
    strategy: str
    seed: int
    workers: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]
    reply: str
    answer: str | None
    score: float | None
