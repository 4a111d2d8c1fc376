"""The training command: it goes on after a kill, and leaves an ordinary model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from hogwild_agents.engine import SharedCacheModel
from hogwild_agents.pocket.training import train as command
from hogwild_agents.pocket.training.train import CHECKPOINT, save_checkpoint
from hogwild_agents.pocket.training.trainer import Recipe

WAIT = 120.0
"""Seconds after which a test gives up."""


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    """Starts a training in a new process group."""
    module = "hogwild_agents.pocket.training"
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
    """Waits for the end of a training; returns its output."""
    try:
        output, _ = training.communicate(timeout=WAIT)
    except subprocess.TimeoutExpired:
        os.killpg(training.pid, signal.SIGKILL)
        raise
    return output


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that was not disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    training = start(folder)
    output = finish(training)
    assert training.returncode == 0, output
    assert f"Trained: {folder}" in output.replace("\n", "")
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
    training.kill()  # its processes end with it, and only then does the pipe close
    training.communicate(timeout=WAIT)
    assert training.returncode == -signal.SIGKILL
    assert not (tmp_path / weights).exists(), "it had ended before it could be killed"
    assert 1 <= torch.load(checkpoint)["step"] < 4
    training = start(tmp_path)
    output = finish(training)
    assert training.returncode == 0, output
    assert re.search(r"Going on after step [123]\.", output)
    assert (tmp_path / weights).read_bytes() == (unbroken / weights).read_bytes()
    resumed, whole = torch.load(checkpoint), torch.load(unbroken / CHECKPOINT)
    assert resumed["step"] == whole["step"] == 4
    assert resumed["losses"] == whole["losses"]


def test_another_recipe_is_refused(unbroken: Path) -> None:
    """The message says what to do, and the folder stays as it is."""
    before = {file.name: file.read_bytes() for file in unbroken.iterdir()}
    training = start(unbroken, "--hidden", "64")
    output = " ".join(finish(training).replace("│", " ").split())
    assert training.returncode == 2
    assert "'hidden': 32" in output
    assert "go on with the same settings, or take another folder" in output
    assert "Traceback" not in output
    assert {file.name: file.read_bytes() for file in unbroken.iterdir()} == before


def test_the_trained_model(unbroken: Path) -> None:
    """Transformers and the engine load it as any other."""
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


def test_file_modes(unbroken: Path) -> None:
    """All files of the model have the same mode: a user who may read one may read all."""
    modes = {file.stat().st_mode & 0o777 for file in unbroken.iterdir()}
    assert len(modes) == 1


# In this process.


def test_settings_of_a_training_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier model's folder is absolute, and the rates are a share of the full ones."""
    recipes: list[Recipe] = []

    class Done:
        """A training that has nothing to do."""

        def join(self) -> bool:
            return True

    def spawn(_: Any, arguments: tuple[Any, ...], **__: Any) -> Done:
        recipes.append(arguments[0])
        return Done()

    monkeypatch.setattr(command, "spawn", spawn)
    monkeypatch.chdir(tmp_path)
    command.train(Path("out"), steps=7, start=Path("old"), rate=0.5, decay=0.9)
    command.train(Path("out"))
    started = Recipe(
        steps=7,
        muon=Recipe().muon / 2,
        adam=Recipe().adam / 2,
        decay=0.9,
        start=str(tmp_path / "old"),
    )
    assert recipes == [started, Recipe()]


def test_a_checkpoint_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while a checkpoint is written leaves the last one."""
    file = tmp_path / CHECKPOINT
    save_checkpoint({"step": 1}, file)

    def fail(_: Any, new: Path) -> None:
        new.write_bytes(b"half of")
        raise OSError("the disk is full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="full"):
        save_checkpoint({"step": 2}, file)
    assert torch.load(file) == {"step": 1}
