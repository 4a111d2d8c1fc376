"""The weights that ship with the package: they do what the model card says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from hogwild_agents import Engine, SharedCacheModel, Team
from hogwild_agents.pocket import FOLDER, team_settings
from hogwild_agents.pocket.evaluate import HIDDEN, Provoke, TaskRow, run_sessions, summarize
from hogwild_agents.pocket.tasks import TaskList, make_task_list
from hogwild_agents.pocket.tokenizer import WORDS, build_tokenizer
from hogwild_agents.pocket.training.teacher import REFUSAL
from hogwild_agents.team import RedundancyCheck

TASK_LISTS = [make_task_list(f"shipped {seed}", 6) for seed in range(48)]
SOME = TASK_LISTS[:16]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """One engine for all tests here."""
    with Engine(SharedCacheModel.from_pretrained(FOLDER, device="cpu", dtype="float32")) as engine:
        yield engine


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


def solve(
    engine: Engine,
    workers: int,
    alone: float | None = None,
    task_lists: Sequence[TaskList] = SOME,
    **options: Any,
) -> TaskRow:
    """The figures of a team."""
    team = Team(tokenizer(), **team_settings(workers) | options)
    return summarize("", run_sessions(engine, team, task_lists, lambda: None), alone)


@pytest.fixture(scope="module")
def single(engine: Engine) -> TaskRow:
    """The figures of one worker."""
    return solve(engine, 1)


def test_it_is_a_small_ordinary_checkpoint() -> None:
    """It has twelve megabytes at most, and transformers loads it."""
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 12e6
    assert (FOLDER / "README.md").read_text().startswith("---\nlicense: apache-2.0")
    model = AutoModelForCausalLM.from_pretrained(FOLDER)
    assert model.config.vocab_size >= len(tokenizer())


def test_its_words_are_those_of_the_package() -> None:
    """The weights know headers, prefixes and questions: change both or neither."""
    built = build_tokenizer()
    assert tokenizer().get_vocab() == built.get_vocab()
    assert tokenizer().chat_template == built.chat_template
    for word in WORDS:
        assert tokenizer().encode(word) == built.encode(word)


def test_one_worker_solves_them(single: TaskRow) -> None:
    assert single.tasks_right >= 0.95
    assert single.asked_yes == single.asked_no == 0


@pytest.mark.parametrize(("workers", "share"), [(2, 0.60), (4, 0.42)])
def test_a_team_solves_them_sooner(
    engine: Engine, single: TaskRow, workers: int, share: float
) -> None:
    """As many are right, in fewer forward passes, and hardly anything is done twice."""
    row = solve(engine, workers, single.passes)
    assert row.tasks_right >= 0.95
    assert row.ratio <= share
    assert row.repeated <= 0.04


@pytest.mark.parametrize("layout", ["contiguous", "interleaved"])
def test_other_layouts(engine: Engine, single: TaskRow, layout: str) -> None:
    row = solve(engine, 2, single.passes, layout=layout)
    assert row.tasks_right >= 0.9
    assert row.ratio <= 0.7


def test_without_the_others_a_team_is_no_sooner(engine: Engine) -> None:
    """Without the shared cache no worker has the whole list, and much is done twice."""
    alone = solve(engine, 1, task_lists=TASK_LISTS).passes
    row = solve(engine, 2, alone, TASK_LISTS, layout=HIDDEN, interrupts=[], budget=400)
    assert row.ratio > 0.85
    assert row.lists_right < 0.05
    assert row.repeated > 0.3


def test_it_tells_the_truth(engine: Engine) -> None:
    """Both where its work is redundant and where it is not."""
    row = solve(engine, 2, interrupts=[Provoke(seed=1), RedundancyCheck(every=1)])
    assert row.asked_yes > 20
    assert row.asked_no > 20
    assert row.true_yes is not None
    assert row.true_no is not None
    assert min(row.true_yes, row.true_no) >= 0.9


@pytest.mark.parametrize("workers", [1, 2])
def test_it_says_what_it_can_do(engine: Engine, workers: int) -> None:
    team = Team(tokenizer(), **team_settings(workers))
    question = "What is the capital of France?"
    assert engine.submit(team.session(question)).result().answer == REFUSAL
