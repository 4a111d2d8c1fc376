"""Measures what a session costs besides its forward passes: scheduling, sampling, text, events."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hogwild_agents.engine import SamplingParams, SharedCacheModel
from hogwild_agents.engine.attention.interface import Row
from hogwild_agents.engine.scheduling.jobs import Job
from hogwild_agents.engine.scheduling.scheduler import Scheduler
from hogwild_agents.engine.scheduling.task import Task
from hogwild_agents.errors import HogwildError
from hogwild_agents.team.prompts import CollaborationPrompt
from hogwild_agents.team.team import Team

WARM_UP = 8
"""Passes before the measured ones: the prompt, the headers, the first calls."""


class Overhead(NamedTuple):
    """What a pass of a session takes, as medians in milliseconds.

    Attributes:
        workers: Workers of the team.
        context: Tokens in the cache in the middle of the measurement.
        forward_ms: `SharedCacheModel.run`.
        rest_ms: Everything else.
    """

    workers: int
    context: int
    forward_ms: float
    rest_ms: float


def measure_overhead(
    shared: SharedCacheModel, workers: int, passes: int, tick: Callable[[], object]
) -> Overhead:
    """Runs one session with sampling, and times its forward passes and the rest separately.

    Args:
        shared: The model; its weights may be random.
        workers: Workers of the team.
        passes: Measured passes.
        tick: Called after every measured pass.

    Raises:
        HogwildError: The model's vocabulary or context is too small for a session.
    """
    timed = _TimedModel(shared)
    scheduler = Scheduler(cast("SharedCacheModel", timed), 512, 0, lambda: None)
    team = Team(
        byte_tokenizer(),
        workers=workers,
        prompt=CollaborationPrompt(style="brief", examples=False),
        finisher="answer",
        budget=passes + 2 * WARM_UP,
        may_end=False,
        sampling=SamplingParams(temperature=0.6, top_p=0.95, top_k=20, seed=0),
    )
    job = cast("Job[Any, Any]", team.session("How many primes are there below one hundred?"))
    errors: list[BaseException | None] = []
    task = Task(job, lambda _: None, lambda _, error: errors.append(error), scheduler.check(job))
    scheduler.add(task)
    forward, rest, context = [], [], 0
    for step in range(passes + WARM_UP):
        timed.forward_seconds = 0.0
        start = time.perf_counter()
        scheduler.advance()
        total = time.perf_counter() - start
        if errors:
            raise HogwildError(f"The session failed: {errors[0]}") from errors[0]
        if step >= WARM_UP:
            tick()
            forward.append(timed.forward_seconds)
            rest.append(total - timed.forward_seconds)
        if step == WARM_UP + passes // 2 and task.lease is not None:
            context = sum(map(len, task.lease.blocks))
    scheduler.cancel(task)
    return Overhead(
        workers, context, 1e3 * statistics.median(forward), 1e3 * statistics.median(rest)
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each byte, which needs no download."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrap: Any = PreTrainedTokenizerFast
    return cast("PreTrainedTokenizerFast", wrap(tokenizer_object=tokenizer, eos_token="<|end|>"))


class _TimedModel:
    """A model that adds up the seconds of its forward passes."""

    def __init__(self, model: SharedCacheModel) -> None:
        self._model = model
        self.forward_seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, rows: Sequence[Row]) -> Tensor:
        start = time.perf_counter()
        logits = self._model.run(rows)
        if self._model.device.type == "cuda":  # the call returns before the card has finished
            torch.cuda.synchronize(self._model.device)
        self.forward_seconds += time.perf_counter() - start
        return logits
