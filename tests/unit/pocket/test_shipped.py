"""The weights that ship: they are what they claim to be, and do what the model card says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from hogwild_agents import Engine, SharedCacheModel, Team
from hogwild_agents.pocket import FOLDER, team_settings
from hogwild_agents.pocket.evaluate import HIDDEN, Provoke, Row, run_sessions, summarize
from hogwild_agents.pocket.tasks import TaskList, make_problem
from hogwild_agents.pocket.tokenizer import WORDS, build_tokenizer
from hogwild_agents.pocket.training.teacher import REFUSAL
from hogwild_agents.team import RedundancyCheck

PROBLEMS = [make_problem(f"shipped {seed}", 6) for seed in range(48)]
FEW = PROBLEMS[:16]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One for all tests here."""
    with Engine(SharedCacheModel.from_pretrained(FOLDER, device="cpu", dtype="float32")) as engine:
        yield engine


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def solve(
    engine: Engine,
    workers: int,
    alone: float | None = None,
    problems: Sequence[TaskList] = FEW,
    **options: Any,
) -> Row:
    """What a team comes to on all problems."""
    team = Team(tokenizer(), **team_settings(workers) | options)
    return summarize("", run_sessions(engine, team, problems, lambda: None), alone)


@pytest.fixture(scope="module")
def one(engine: Engine) -> Row:
    """What one worker comes to."""
    return solve(engine, 1)


def test_it_is_small_and_usual() -> None:
    """Twelve megabytes at most, and any other program loads it."""
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 12e6
    assert (FOLDER / "README.md").read_text().startswith("---\nlicense: apache-2.0")
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    assert model.config.vocab_size >= len(tokenizer())


def test_its_words_are_the_package_s() -> None:
    """Headers, prefixes and questions are part of what the weights know: change both or neither."""
    own = build_tokenizer()
    assert tokenizer().get_vocab() == own.get_vocab()
    assert tokenizer().chat_template == own.chat_template
    for word in WORDS:
        assert tokenizer().encode(word) == own.encode(word)


def test_one_worker_solves_them(one: Row) -> None:
    assert one.tasks_right >= 0.95
    assert one.asked_yes == one.asked_no == 0


@pytest.mark.parametrize(("workers", "share"), [(2, 0.60), (4, 0.42)])
def test_a_team_solves_them_sooner(engine: Engine, one: Row, workers: int, share: float) -> None:
    """As many are right, in fewer forward passes, and next to nothing is done twice."""
    row = solve(engine, workers, one.passes)
    assert row.tasks_right >= 0.95
    assert row.ratio <= share
    assert row.repeated <= 0.04


@pytest.mark.parametrize("layout", ["contiguous", "interleaved"])
def test_other_layouts(engine: Engine, one: Row, layout: str) -> None:
    row = solve(engine, 2, one.passes, layout=layout)
    assert row.tasks_right >= 0.9
    assert row.ratio <= 0.7


def test_without_the_others_a_team_is_no_sooner(engine: Engine) -> None:
    """It is the shared cache that does it: nobody has the whole list, and much is done twice."""
    alone = solve(engine, 1, problems=PROBLEMS).passes
    row = solve(engine, 2, alone, PROBLEMS, layout=HIDDEN, interrupts=[], budget=400)
    assert row.ratio > 0.85
    assert row.lists_right < 0.05
    assert row.repeated > 0.3


def test_it_tells_the_truth(engine: Engine) -> None:
    """Whether its work is redundant, and whether it is not."""
    row = solve(engine, 2, interrupts=[Provoke(seed=1), RedundancyCheck(every=1)])
    assert row.asked_yes > 20
    assert row.asked_no > 20
    assert row.true_yes is not None
    assert row.true_no is not None
    assert min(row.true_yes, row.true_no) >= 0.9


@pytest.mark.parametrize("workers", [1, 2])
def test_it_says_what_it_can_do(engine: Engine, workers: int) -> None:
    team = Team(tokenizer(), **team_settings(workers))
    asked = "What is the capital of France?"
    assert engine.submit(team.session(asked)).result().answer == REFUSAL
