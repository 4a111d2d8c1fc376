"""Training: it learns, it goes on where it was killed, and what it leaves is a usual model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hogwild_agents.engine import SharedCacheModel
from hogwild_agents.pocket import tokenizer
from hogwild_agents.pocket.tasks import TaskList, make_problem
from hogwild_agents.pocket.training import lessons, requests
from hogwild_agents.pocket.training import train as training
from hogwild_agents.pocket.training.packing import Rotations
from hogwild_agents.pocket.training.train import (
    CHECKPOINT,
    THETA,
    Recipe,
    Trainer,
    build_model,
    export,
    save_checkpoint,
)

TINY = Recipe(tokens=300, hidden=32, layers=1, steps=40, processes=1, warmup=4)
WAIT = 120.0
"""Seconds after which a test gives up."""


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    """A training in a process group of its own."""
    module = "hogwild_agents.pocket.training.train"
    fixed = ["--steps", "4", "--layers", "1", "--processes", "2", "--every", "1"]
    return subprocess.Popen(
        [sys.executable, "-m", module, "--out", str(out), *fixed, *(options or ("--hidden", "32"))],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(training: subprocess.Popen[str]) -> str:
    """What a training says until its end."""
    try:
        said, _ = training.communicate(timeout=WAIT)
    except subprocess.TimeoutExpired:
        os.killpg(training.pid, signal.SIGKILL)
        raise
    return said


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nobody has disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    training = start(folder)
    said = finish(training)
    assert training.returncode == 0, said
    assert f"Trained: {folder}" in said.replace("\n", "")
    return folder


# A whole training, in real processes.


def test_killed_and_resumed(unbroken: Path, tmp_path: Path) -> None:
    """A training that is killed and started again ends with the same weights, to the byte."""
    checkpoint, weights = tmp_path / CHECKPOINT, "model.safetensors"
    training = start(tmp_path)
    deadline = time.monotonic() + WAIT
    while not checkpoint.exists():
        assert training.poll() is None, training.stdout
        assert time.monotonic() < deadline
        time.sleep(0.005)
    training.kill()  # its processes end with it: only then is there no more to be read
    training.communicate(timeout=WAIT)
    assert training.returncode == -signal.SIGKILL
    assert not (tmp_path / weights).exists(), "it was done before it could be killed"
    assert 1 <= torch.load(checkpoint)["step"] < 4
    training = start(tmp_path)
    said = finish(training)
    assert training.returncode == 0, said
    assert re.search(r"Going on after step [123]\.", said)
    assert (tmp_path / weights).read_bytes() == (unbroken / weights).read_bytes()
    kept, whole = torch.load(checkpoint), torch.load(unbroken / CHECKPOINT)
    assert kept["step"] == whole["step"] == 4
    assert kept["losses"] == whole["losses"]


def test_another_recipe_is_refused(unbroken: Path) -> None:
    """It says what to do, and leaves the folder as it is."""
    before = {file.name: file.read_bytes() for file in unbroken.iterdir()}
    training = start(unbroken, "--hidden", "64")
    said = " ".join(finish(training).replace("│", " ").split())
    assert training.returncode == 2
    assert "'hidden': 32" in said
    assert "go on with the same settings, or take another folder" in said
    assert "Traceback" not in said
    assert {file.name: file.read_bytes() for file in unbroken.iterdir()} == before


def test_what_is_left(unbroken: Path) -> None:
    """A checkpoint that transformers and the engine load as any other."""
    model = AutoModelForCausalLM.from_pretrained(unbroken)
    tokenizer = AutoTokenizer.from_pretrained(unbroken)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.architectures == ["Qwen3ForCausalLM"]
    assert len(tokenizer) <= model.config.vocab_size < len(tokenizer) + 16
    assert tokenizer.decode(tokenizer.encode("reverse abc")) == "reverse abc"
    trained = torch.load(unbroken / CHECKPOINT)["model"]
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, trained[name].half().float()), name
    SharedCacheModel.from_pretrained(unbroken, device="cpu", dtype="float32")


def test_others_may_read_what_is_left(unbroken: Path) -> None:
    """All files of the model have the same mode, so that whoever may read one may read all."""
    modes = {file.stat().st_mode & 0o777 for file in unbroken.iterdir()}
    assert len(modes) == 1


# In this process.


def test_it_learns() -> None:
    """Thirty steps of next to nothing bring the loss down."""
    trainer = Trainer(TINY)
    for _ in range(30):
        trainer.advance()
    assert trainer.step == len(trainer.losses) == 30
    assert mean(trainer.losses[-5:]) < 0.75 * mean(trainer.losses[:3])


def test_losses() -> None:
    """They are means over the learnt tokens of all lessons of a step."""
    trainer = Trainer(TINY)
    summed, learnt = 0.0, 0
    for lesson in trainer._next_lessons():
        zeros = torch.zeros_like(lesson.ids)[None]
        rotations = Rotations(lesson, THETA, trainer.model.config.head_dim)
        out = trainer.model(input_ids=lesson.ids[None], position_ids=zeros, rotations=rotations)
        logarithms = out.logits[0].log_softmax(-1)
        for row, target in enumerate(lesson.targets.tolist()):
            if target >= 0:
                summed -= logarithms[row, target].item()
                learnt += 1
    trainer.advance()
    assert trainer.losses == [pytest.approx(summed / learnt, rel=1e-4)]


def test_a_state_is_all() -> None:
    """Whoever goes on from a state, written to a file, goes on as if nothing had happened."""
    one = Trainer(TINY)
    one.advance()
    kept = {name: _copy(value) for name, value in one.state().items()}
    one.advance()
    other = Trainer(TINY)
    other.restore(kept)
    assert (other.step, len(other.losses)) == (1, 1)
    other.advance()
    for name, weights in one.model.state_dict().items():
        assert torch.equal(weights, other.model.state_dict()[name]), name
    assert one.losses == other.losses


def _copy(value: Any) -> Any:
    """A value as a file would keep it."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


# To go on from another model.


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """A model with fewer words, in another order."""
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "WORDS", tokenizer.WORDS[:20:-1])
        model = build_model(replace(TINY, seed=5))
        export(model, tmp_path)
    return tmp_path, model


def test_what_is_taken_over(earlier: tuple[Path, Any]) -> None:
    """All weights, and each word's row wherever it stood; new words stay as they were."""
    folder, old = earlier
    taken, fresh = build_model(replace(TINY, start=str(folder))), build_model(TINY)
    known = AutoTokenizer.from_pretrained(folder).get_vocab()
    words = tokenizer.build_tokenizer().get_vocab()
    assert 200 < len(known.keys() & words.keys()) < len(words)
    rows, fresh_rows = taken.model.embed_tokens.weight, fresh.model.embed_tokens.weight
    for word, row in words.items():
        if word in known:
            assert torch.equal(rows[row], old.model.embed_tokens.weight[known[word]].half().float())
        else:
            assert torch.equal(rows[row], fresh_rows[row])
    assert taken.lm_head.weight is rows
    for name, weights in old.state_dict().items():
        if "embed" not in name and "head" not in name:
            assert torch.equal(taken.state_dict()[name], weights.half().float()), name


def test_who_goes_on_is_spared_easy_lessons(earlier: tuple[Path, Any]) -> None:
    """From the first step on it gets those of the end."""
    trainer = Trainer(replace(TINY, start=str(earlier[0])))
    for number, lesson in enumerate(trainer._next_lessons()):
        name = f"0 0 {number}"
        assert torch.equal(lesson.ids, trainer._lessons.lesson(name, 1.0).ids)
    trainer.advance()
    assert trainer.step == 1


def test_settings_of_a_training_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is found from everywhere, and rates that are a share of the full ones."""
    given: list[Recipe] = []

    class Done:
        """A training that has nothing to do."""

        def join(self) -> bool:
            return True

    def spawned(_: Any, told: tuple[Any, ...], **__: Any) -> Done:
        given.append(told[0])
        return Done()

    monkeypatch.setattr(training, "spawn", spawned)
    monkeypatch.chdir(tmp_path)
    training.train(Path("out"), steps=7, start=Path("old"), rate=0.5, decay=0.9)
    training.train(Path("out"))
    started = Recipe(
        steps=7,
        muon=Recipe().muon / 2,
        adam=Recipe().adam / 2,
        decay=0.9,
        start=str(tmp_path / "old"),
    )
    assert given == [started, Recipe()]


def test_a_checkpoint_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault while one is being written leaves the last one."""
    file = tmp_path / CHECKPOINT
    save_checkpoint({"step": 1}, file)

    def fail(_: Any, new: Path) -> None:
        new.write_bytes(b"half of")
        raise OSError("the disk is full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="full"):
        save_checkpoint({"step": 2}, file)
    assert torch.load(file) == {"step": 1}


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
    """Another step or rank, other lessons; the same ones in every run; enough of them."""
    recipe = Recipe(tokens=1500, hidden=32, layers=1, processes=2)
    seen = []
    for rank, step in ((0, 0), (0, 0), (1, 0), (0, 5)):
        trainer = Trainer(recipe, rank)
        trainer.step = step
        seen.append([lesson.ids.tolist() for lesson in trainer._next_lessons()])
    assert seen[0] == seen[1]
    assert seen[0] != seen[2] != seen[3] != seen[0]
    for row in seen:
        *most, last = map(len, row)
        assert sum(most) < 750 <= sum(most) + last


def test_lessons_hold_nothing_that_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of their tasks are of the split for training."""
    splits: set[str] = set()

    def spy(*given: Any, **options: Any) -> TaskList:
        problem = make_problem(*given, **options)
        splits.update(task.split for task in problem.tasks)
        return problem

    for module in (lessons, requests):
        splits.clear()
        with monkeypatch.context() as patch:
            patch.setattr(module, "make_problem", spy)
            made = Trainer(TINY)._lessons
            for number in range(100):
                made.transcript(f"{number}", number / 100)
        assert splits == {"train"}


def test_plain_forward_of_what_is_exported(tmp_path: Path) -> None:
    """For one worker alone, transformers' own attention computes what was trained."""
    model = build_model(TINY)
    export(model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    trainer = Trainer(TINY)
    trainer.model.load_state_dict(plain.state_dict())
    lesson = next(
        lesson
        for name in count()
        if len((lesson := trainer._lessons.lesson(f"{name}", 0.0)).columns) == 1
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
