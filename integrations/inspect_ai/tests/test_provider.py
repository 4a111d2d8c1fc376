"""The provider in Inspect itself, on the pocket model: no network, no mocks."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval  # noqa: A004  its own name
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import (
    ChatMessageUser,
    ContentImage,
    ContentReasoning,
    GenerateConfig,
    ModelOutput,
    ResponseSchema,
    get_model,
)
from inspect_ai.solver import generate
from inspect_ai.util import JSONSchema

from hogwild_agents.errors import InvalidRequestError

TASKS = Path(__file__).with_name("tasks.py")
QUESTION = "Solve these tasks.\n(a) 4731 + 2869\n(b) reverse nirok"


def run(what: Any, log_dir: Path, **options: Any) -> EvalLog:
    """Evaluates and gives the log, as it was written to the disk."""
    options = {"model": "hogwild/pocket", "display": "none", "log_dir": str(log_dir)} | options
    (log,) = eval(what, **options)
    assert log.status == "success", log.error
    return read_eval_log(log.location)


def outputs(log: EvalLog) -> list[ModelOutput]:
    """What the model said last, by sample."""
    assert log.samples
    return [sample.output for sample in log.samples]


async def ask(question: Any, args: dict[str, Any] | None = None, **config: Any) -> ModelOutput:
    """One question, by Inspect's interface for scripts."""
    model = get_model("hogwild/pocket", **(args or {}))
    return await model.generate(question, config=GenerateConfig(**config))


def test_a_task_is_evaluated(tmp_path: Path) -> None:
    """Answers, thoughts, stop reasons, usage and metadata are in the log."""
    log = run(f"{TASKS}@sums", tmp_path, model_args={"workers": 4, "budget": 512})
    assert log.results
    assert log.results.scores[0].metrics["accuracy"].value == 1
    for output in outputs(log):
        assert output.stop_reason == "stop"
        assert output.completion.startswith("(a) ")
        thoughts = [part for part in output.message.content if isinstance(part, ContentReasoning)]
        assert [thought.internal for thought in thoughts] == [
            {"worker": name} for name in ("Alice", "Bob", "Carol", "Dave")
        ]
        assert thoughts[0].reasoning.startswith("**Alice**\n\n")
        assert output.metadata
        assert output.metadata["answer"] == output.completion
        assert 0 < output.metadata["passes"] <= 512
        usage = output.usage
        assert usage
        assert usage.reasoning_tokens == usage.output_tokens == 4 * output.metadata["passes"]
        read = usage.input_tokens + (usage.input_tokens_cache_read or 0)
        assert read > 0
        assert usage.total_tokens == read + usage.output_tokens


def test_samples_run_in_the_same_passes(tmp_path: Path) -> None:
    """Forty samples are in flight at once: the last one begins before the first one ends."""
    samples = [Sample(input=f"Solve these tasks.\n(a) {n} + {n}") for n in range(100, 140)]
    log = run(Task(dataset=samples, solver=generate()), tmp_path, max_connections=40)
    events = [event for sample in log.samples or () for event in sample.events]
    calls = [event for event in events if event.event == "model"]
    begun = max(event.timestamp for event in calls)
    ended = min(event.completed for event in calls if event.completed)
    assert begun < ended


def test_a_tool_is_called(tmp_path: Path) -> None:
    """The call has valid arguments, its result is read, and a reply follows."""
    log = run(f"{TASKS}@calls", tmp_path)
    assert log.samples
    (sample,) = log.samples
    called = next(message for message in sample.messages if message.role == "assistant")
    assert called.tool_calls
    (call,) = called.tool_calls
    assert call.function == "add"
    assert call.arguments.keys() == {"x", "y"}
    total = sum(call.arguments.values())
    result = next(message for message in sample.messages if message.role == "tool")
    assert result.text == f"The sum is {total}."
    first = next(event for event in sample.events if event.event == "model")
    assert first.output.stop_reason == "tool_calls"
    assert sample.output.stop_reason == "stop"
    assert str(total) in sample.output.completion


def command(log_dir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """`inspect eval` in a process of its own."""
    inspect = str(Path(sys.executable).with_name("inspect"))
    return subprocess.run(
        [
            *(inspect, "eval", f"{TASKS.name}@sums", "--model", "hogwild/pocket", *flags),
            *("--log-dir", str(log_dir), "--display", "plain"),
        ],
        cwd=TASKS.parent,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_the_command(tmp_path: Path) -> None:
    """`inspect eval` finds the provider by its entry point, and -M reaches the team."""
    options = ("-M", "workers=3", "-M", "budget=256", "-M", "layout=interleaved")
    done = command(tmp_path, *options, "--limit", "2", "--stop-seqs", "(b")
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("*.eval")
    results = outputs(read_eval_log(str(file)))
    assert len(results) == 2
    for output in results:
        assert output.metadata
        assert len(output.metadata["workers"]) == 3
        assert output.metadata["layout"] == "interleaved"
        assert "(b" not in output.completion


def test_the_command_refuses_early(tmp_path: Path) -> None:
    """Unsupported options are refused before any sample runs."""
    done = command(tmp_path, "--num-choices", "3")
    assert done.returncode != 0
    assert "--epochs" in done.stdout + done.stderr
    assert not [*tmp_path.glob("*.eval")]


async def test_settings_of_one_answer() -> None:
    """Sampling, seeds, stop strings, lengths and budgets reach the team."""
    greedy = await ask(QUESTION)
    drawn = [await ask(QUESTION, temperature=4.0, top_k=99, top_p=1.0, seed=7) for _ in range(2)]
    assert drawn[0].message.content == drawn[1].message.content != greedy.message.content
    stopped = await ask(QUESTION, stop_seqs=[","])
    assert greedy.completion.startswith(stopped.completion + ",")
    short = await ask(QUESTION, max_tokens=3)
    assert greedy.completion.startswith(short.completion)
    assert len(short.completion) < len(greedy.completion)
    hurried = await ask(QUESTION, {"workers": 2}, reasoning_tokens=20)
    assert hurried.metadata
    assert hurried.metadata["passes"] == 10
    assert hurried.metadata["thinking_ended"] == "budget"


async def test_a_schema() -> None:
    """The reply fits it."""
    number = JSONSchema(type="integer")
    schema = JSONSchema(type="object", properties={"sum": number}, required=["sum"])
    reply = await ask(QUESTION, response_schema=ResponseSchema(name="total", json_schema=schema))
    assert isinstance(json.loads(reply.completion)["sum"], int)


async def test_a_conversation_that_is_too_long() -> None:
    """It is not an error: the sample ends with `model_length`."""
    reply = await ask("word " * 20_000)
    assert reply.stop_reason == "model_length"
    assert reply.error


async def test_invalid_options_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    """With the invalid value; options without effect are warned about once."""
    for config in ({"logprobs": True}, {"frequency_penalty": 0.5}, {"logit_bias": {1: 2.0}}):
        with pytest.raises(InvalidRequestError, match=next(iter(config))):
            await ask(QUESTION, **config)
    with pytest.raises(InvalidRequestError, match="image"):
        await ask([ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA==")])])
    with pytest.raises(InvalidRequestError, match="base_url"):
        get_model("hogwild/pocket", base_url="http://127.0.0.1")
    for name, value in (("workers", 99), ("workrs", 3)):
        with pytest.raises(InvalidRequestError, match=f"-M.*{name}"):
            get_model("hogwild/pocket", **{name: value})
    with caplog.at_level(logging.WARNING):
        await ask("(a) 1 + 2", reasoning_effort="high", num_choices=1, logprobs=False)
        await ask("(a) 1 + 2", reasoning_effort="high")
    warnings = [
        record.getMessage() for record in caplog.records if "has no effect" in record.message
    ]
    assert warnings == ["reasoning_effort='high' has no effect with a hogwild model."]


async def test_tokens_are_the_models_own() -> None:
    """Inspect counts with the model's tokenizer."""
    api = get_model("hogwild/pocket").api
    ids = await api.tokenize("reverse nirok")
    assert await api.count_tokens("reverse nirok") == len(ids) > 0
