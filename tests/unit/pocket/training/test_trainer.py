"""The trainer: what it learns from, that it learns, and the model that it exports."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hogwild_agents.pocket import tokenizer
from hogwild_agents.pocket.tasks import TaskList, make_task_list
from hogwild_agents.pocket.training import lessons, requests
from hogwild_agents.pocket.training.packed_attention import Rotations
from hogwild_agents.pocket.training.trainer import THETA, Recipe, Trainer, build_model, export

TINY = Recipe(tokens=300, hidden=32, layers=1, steps=40, processes=1, warmup=4)


def test_it_learns() -> None:
    """Thirty small steps bring the loss down."""
    trainer = Trainer(TINY)
    for _ in range(30):
        trainer.advance()
    assert trainer.step == len(trainer.losses) == 30
    assert mean(trainer.losses[-5:]) < 0.75 * mean(trainer.losses[:3])


def test_losses() -> None:
    """A loss is the mean over the learnt tokens of all lessons of a step."""
    trainer = Trainer(TINY)
    total, learnt = 0.0, 0
    for lesson in trainer._next_lessons():
        zeros = torch.zeros_like(lesson.ids)[None]
        rotations = Rotations(lesson, THETA, trainer.model.config.head_dim)
        out = trainer.model(input_ids=lesson.ids[None], position_ids=zeros, rotations=rotations)
        log_probabilities = out.logits[0].log_softmax(-1)
        for row, target in enumerate(lesson.targets.tolist()):
            if target >= 0:
                total -= log_probabilities[row, target].item()
                learnt += 1
    trainer.advance()
    assert trainer.losses == [pytest.approx(total / learnt, rel=1e-4)]


def test_a_state_is_complete() -> None:
    """A trainer that is restored from a state goes on as if nothing had happened."""
    unbroken = Trainer(TINY)
    unbroken.advance()
    state = {name: _copy(value) for name, value in unbroken.state().items()}
    unbroken.advance()
    restored = Trainer(TINY)
    restored.restore(state)
    assert (restored.step, len(restored.losses)) == (1, 1)
    restored.advance()
    for name, weights in unbroken.model.state_dict().items():
        assert torch.equal(weights, restored.model.state_dict()[name]), name
    assert unbroken.losses == restored.losses


def _copy(value: Any) -> Any:
    """A copy, as if the value had been written to a file."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


# Training that goes on from another model.


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """A model with fewer words, in another order."""
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "WORDS", tokenizer.WORDS[:20:-1])
        model = build_model(replace(TINY, seed=5))
        export(model, tmp_path)
    return tmp_path, model


def test_weights_of_an_earlier_model(earlier: tuple[Path, Any]) -> None:
    """All are loaded, each word's row from wherever it was; new words stay untrained."""
    folder, old = earlier
    loaded, fresh = build_model(replace(TINY, start=str(folder))), build_model(TINY)
    old_words = AutoTokenizer.from_pretrained(folder).get_vocab()
    words = tokenizer.build_tokenizer().get_vocab()
    assert 200 < len(old_words.keys() & words.keys()) < len(words)
    rows, fresh_rows = loaded.model.embed_tokens.weight, fresh.model.embed_tokens.weight
    old_rows = old.model.embed_tokens.weight.half().float()
    for word, row in words.items():
        if word in old_words:
            assert torch.equal(rows[row], old_rows[old_words[word]])
        else:
            assert torch.equal(rows[row], fresh_rows[row])
    assert loaded.lm_head.weight is rows
    for name, weights in old.state_dict().items():
        if "embed" not in name and "head" not in name:
            assert torch.equal(loaded.state_dict()[name], weights.half().float()), name


def test_an_earlier_model_skips_easy_lessons(earlier: tuple[Path, Any]) -> None:
    """From the first step on it gets the lessons of the end."""
    trainer = Trainer(replace(TINY, start=str(earlier[0])))
    for number, lesson in enumerate(trainer._next_lessons()):
        name = f"0 0 {number}"
        assert torch.equal(lesson.ids, trainer._lessons.lesson(name, 1.0).ids)
    trainer.advance()
    assert trainer.step == 1


def test_rates() -> None:
    """They rise, stay, and fall to a hundredth."""
    recipe = Recipe(steps=1000, warmup=100, decay=0.4)
    rates = [recipe.rate(step) for step in range(1000)]
    assert rates[0] == 0.01
    assert rates[99:600] == [1.0] * 501
    assert rates[:100] == sorted(rates[:100])
    assert rates[600:] == sorted(rates[600:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=0.005)


def test_lessons_of_a_step() -> None:
    """They differ by step and rank, are the same in every run, and are long enough."""
    recipe = Recipe(tokens=1500, hidden=32, layers=1, processes=2)
    texts = []
    for rank, step in ((0, 0), (0, 0), (1, 0), (0, 5)):
        trainer = Trainer(recipe, rank)
        trainer.step = step
        texts.append([lesson.ids.tolist() for lesson in trainer._next_lessons()])
    assert texts[0] == texts[1]
    assert texts[0] != texts[2] != texts[3] != texts[0]
    for row in texts:
        *lengths, last = map(len, row)
        assert sum(lengths) < 750 <= sum(lengths) + last


def test_lessons_contain_no_test_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of their tasks are in the split for training."""
    splits: set[str] = set()

    def spy(*arguments: Any, **options: Any) -> TaskList:
        task_list = make_task_list(*arguments, **options)
        splits.update(task.split for task in task_list.tasks)
        return task_list

    for module in (lessons, requests):
        splits.clear()
        with monkeypatch.context() as patch:
            patch.setattr(module, "make_task_list", spy)
            maker = Trainer(TINY)._lessons
            for number in range(100):
                maker.transcript(f"{number}", number / 100)
        assert splits == {"train"}


def test_plain_forward_of_an_exported_model(tmp_path: Path) -> None:
    """For a single worker, transformers' own attention computes what was trained."""
    model = build_model(TINY)
    export(model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    trainer = Trainer(TINY)
    trainer.model.load_state_dict(plain.state_dict())
    lesson = next(
        lesson
        for name in count()
        if len((lesson := trainer._lessons.lesson(f"{name}", 0.0)).block_columns) == 1
    )
    zeros = torch.zeros_like(lesson.ids)[None]
    with torch.no_grad():
        ours = trainer.model(
            input_ids=lesson.ids[None],
            position_ids=zeros,
            rotations=Rotations(lesson, THETA, 32),
        ).logits
        theirs = plain(input_ids=lesson.ids[None]).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
