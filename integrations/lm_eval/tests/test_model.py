"""The model in lm_eval itself: real tasks with local data, on the pocket model."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hogwild_lm_eval.model import Chat, HogwildLM
from hogwild_lm_eval.options import call_options
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from hogwild_agents.errors import InvalidRequestError
from hogwild_agents.pocket import FOLDER

torch.set_num_threads(1)


def run(tasks: Path, names: list[str], **options: Any) -> dict[str, Any]:
    """lm_eval's own evaluation."""
    results = simple_evaluate(
        **{"model": "hogwild", "model_args": {"pretrained": "pocket"}, **options},
        tasks=names,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    assert results is not None
    return dict(results)


def request(*arguments: Any) -> Instance:
    """One question to the model."""
    return Instance("generate_until", {}, arguments, 0)


def log_probability(context: str, continuation: str) -> float:
    """By plain transformers, of a text behind another."""
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    before = tokenizer.encode(context) if context else [tokenizer.eos_token_id]
    whole = tokenizer.encode(context + continuation)
    ids = torch.tensor([before + whole[len(before) if context else 0 :]])  # as lm_eval cuts it
    with torch.no_grad():
        chances = model(ids).logits[0].log_softmax(-1)[len(before) - 1 : -1]
    return float(chances.gather(1, ids[0, len(before) :, None]).sum())


def test_a_task_that_generates(tasks: Path) -> None:
    """Teams solve it; the results tell of the team and its forward passes."""
    args = "pretrained=pocket,workers=4,budget=512"
    found = run(tasks, ["hogwild_sums"], model_args=args)
    assert found["results"]["hogwild_sums"]["exact_match,none"] >= 0.5
    team = found["config"]["hogwild"]
    assert (team["workers"], team["budget"]) == (4, 512)
    assert 0 < team["mean_passes"] <= 512


def test_limits_of_replies(tasks: Path) -> None:
    """`until`, `max_gen_toks` and options of the team reach it."""
    found = run(tasks, ["hogwild_sums"], gen_kwargs={"until": [","], "budget": 100}, limit=2)
    replies = [sample["resps"][0][0] for sample in found["samples"]["hogwild_sums"]]
    assert replies == ["(a) 7600", "(a) 42"]
    assert found["config"]["hogwild"]["mean_passes"] <= 100
    lm = HogwildLM("pocket")
    (short,) = lm.generate_until([request("(a) 4731 + 2869", {"max_gen_toks": 2})])
    assert 0 < len(short) < len("(a) 7600")


def test_multiple_choice(tasks: Path) -> None:
    """Scored by log-probabilities, which are those of plain transformers."""
    found = run(tasks, ["hogwild_choices"])
    assert found["results"]["hogwild_choices"]["acc,none"] >= 0.5
    for sample in found["samples"]["hogwild_choices"]:
        for argument, ((score, _),) in zip(sample["arguments"], sample["resps"], strict=True):
            assert score == pytest.approx(log_probability(*argument), abs=1e-4)


def test_whole_texts(tasks: Path) -> None:
    """Their perplexity, also in windows of a short context."""
    found = run(tasks, ["hogwild_texts"])
    texts = [sample["doc"]["text"] for sample in found["samples"]["hogwild_texts"]]
    wanted = [log_probability("", text) for text in texts]
    for sample, log_prob in zip(found["samples"]["hogwild_texts"], wanted, strict=True):
        assert sample["resps"][0][0] == pytest.approx(log_prob, abs=1e-4)
    size = sum(len(text.encode()) for text in texts)
    perplexity = found["results"]["hogwild_texts"]["byte_perplexity,none"]
    assert perplexity == pytest.approx(math.exp(-sum(wanted) / size), rel=1e-5)
    short = HogwildLM("pocket", max_length=64).loglikelihood_rolling([request(texts[1])])
    assert short[0] < wanted[1]


def test_answers_are_remembered(tasks: Path, tmp_path: Path) -> None:
    """lm_eval's cache saves all work the second time, for every kind of task."""
    names, cache = ["hogwild_sums", "hogwild_choices", "hogwild_texts"], str(tmp_path / "cache")
    first = run(tasks, names, use_cache=cache, limit=2)
    with mock.patch.object(HogwildLM, "_reply"), mock.patch.object(HogwildLM, "_fitted"):
        assert run(tasks, names, use_cache=cache, limit=2)["results"] == first["results"]


def test_conversations(tasks: Path) -> None:
    """Teams get messages, what is scored is in the template; it begins no second time."""
    found = run(
        tasks,
        ["hogwild_sums", "hogwild_choices"],
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        system_instruction="Be brief.",
        limit=2,
    )
    assert found["results"]["hogwild_sums"]["exact_match,none"] >= 0.5
    context = found["samples"]["hogwild_choices"][0]["arguments"][0][0]
    assert isinstance(context, Chat)
    assert [message["role"] for message in context.messages] == ["system", "user"]
    assert "Be brief." in context
    assert pickle.loads(pickle.dumps(context)).messages == context.messages


def test_a_reply_that_is_begun_is_refused() -> None:
    """A team cannot continue it."""
    lm = HogwildLM("pocket")
    turns = [{"role": "user", "content": "(a) 1 + 2"}, {"role": "assistant", "content": "(a)"}]
    begun = lm.apply_chat_template(turns, add_generation_prompt=False)
    with pytest.raises(InvalidRequestError, match="gen_prefix"):
        lm.generate_until([request(begun, {})])


def test_long_texts(caplog: pytest.LogCaptureFixture) -> None:
    """A problem counts as not answered, a context loses its beginning."""
    lm = HogwildLM("pocket")
    with caplog.at_level(logging.WARNING):
        assert lm.generate_until([request("word " * 9000, {})]) == [""]
    assert "too long" in caplog.text
    (cut,) = lm._loglikelihood_tokens([(None, [*range(99)] * 50, [1, 2, 3])])
    last = ([*range(99)] * 50)[-(4096 - 2) :]
    (same,) = lm._loglikelihood_tokens([(None, last, [1, 2, 3])])
    assert cut[0] == pytest.approx(same[0], abs=1e-4)
    with pytest.raises(ValueError, match="does not fit"):
        lm._loglikelihood_tokens([(None, [1], [2] * 4097)])
    assert lm._loglikelihood_tokens([(None, [1], [])]) == [(0.0, True)]


def test_generation_arguments(caplog: pytest.LogCaptureFixture) -> None:
    """As lm_eval defines them; arguments without effect are warned about once."""
    greedy = {"temperature": 0.0, "stop": None}
    assert call_options({}) == greedy
    assert call_options({"do_sample": False, "temperature": 0.7, "until": []}) == greedy
    assert call_options(
        {"until": "\n", "max_new_tokens": "9", "temperature": 0.6, "top_p": 0.9}
    ) == {
        "temperature": 0.6,
        "stop": ["\n"],
        "max_tokens": 9,
        "top_p": 0.9,
    }
    for _ in range(2):
        call_options({"num_beams": 4})
    assert [record.message for record in caplog.records] == [
        "num_beams=4 has no effect with a hogwild model."
    ]


def test_names() -> None:
    """lm_eval knows the model beside its own."""
    assert get_model("hogwild") is HogwildLM
    assert get_model("dummy") is not HogwildLM
    with pytest.raises(ValueError, match="workers"):
        HogwildLM("pocket", workers=99)


def command(*arguments: str, module: bool = False) -> str:
    """What a command prints, in a process of its own."""
    script = str(Path(sys.executable).with_name("hogwild-lm-eval"))
    done = subprocess.run(
        [*((sys.executable, "-m", "hogwild_lm_eval") if module else (script,)), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command(tasks: Path, tmp_path: Path) -> None:
    """YAML files of one's own, a table, and all samples in a file."""
    output = tmp_path / "results.json"
    files = [str(tasks / f"{name}.yaml") for name in ("sums", "choices")]
    shown = command(*files, "--workers", "3", "--limit", "2", "--output", str(output))
    assert "hogwild_sums" in shown
    assert "hogwild_choices" in shown
    found = json.loads(output.read_text())
    assert found["config"]["hogwild"]["workers"] == 3
    assert len(found["samples"]["hogwild_sums"]) == 2
    assert "Begin with" in command("--help")
    with pytest.raises(AssertionError, match="lm-eval ls tasks"):
        command("hogwild_no_such_task")


def test_lm_evals_own_command(tasks: Path, tmp_path: Path) -> None:
    """`python -m hogwild_lm_eval` is that, with one model more."""
    shown = command(
        *("run", "--model", "hogwild", "--model_args", "pretrained=pocket,workers=2"),
        *("--tasks", "hogwild_choices", "--include_path", str(tasks), "--batch_size", "2"),
        *("--output_path", str(tmp_path)),
        module=True,
    )
    assert "hogwild_choices" in shown
    assert [*tmp_path.rglob("results_*.json")]
