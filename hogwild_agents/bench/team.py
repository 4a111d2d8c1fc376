"""Measures what a session costs beside its forward passes: scheduling, sampling, text, events."""

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
"""Passes before the measured ones: the prompt, the headers, first calls."""


class Overhead(NamedTuple):
    """What a pass of a session takes, as medians in milliseconds.

    Attributes:
        workers: Of the team.
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
    """Runs one session, sampled, and clocks the forward passes apart from the rest.

    Args:
        shared: The model; a random one will do.
        workers: Of the team.
        passes: Measured passes.
        tick: Called after every one.

    Raises:
        HogwildError: The model's vocabulary or context is too small for a session.
    """
    clocked = _Clocked(shared)
    scheduler = Scheduler(cast("SharedCacheModel", clocked), 512, 0, lambda: None)
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
    for turn in range(passes + WARM_UP):
        clocked.seconds = 0.0
        start = time.perf_counter()
        scheduler.advance()
        total = time.perf_counter() - start
        if errors:
            raise HogwildError(f"The session failed: {errors[0]}") from errors[0]
        if turn >= WARM_UP:
            tick()
            forward.append(clocked.seconds)
            rest.append(total - clocked.seconds)
        if turn == WARM_UP + passes // 2 and task.lease is not None:
            context = sum(map(len, task.lease.blocks))
    scheduler.cancel(task)
    return Overhead(
        workers, context, 1e3 * statistics.median(forward), 1e3 * statistics.median(rest)
    )


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each byte: writes any text, needs no download."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrap: Any = PreTrainedTokenizerFast
    return cast("PreTrainedTokenizerFast", wrap(tokenizer_object=tokenizer, eos_token="<|end|>"))


class _Clocked:
    """A model that counts the seconds of its forward passes."""

    def __init__(self, model: SharedCacheModel) -> None:
        self._model = model
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def run(self, rows: Sequence[Row]) -> Tensor:
        start = time.perf_counter()
        logits = self._model.run(rows)
        if self._model.device.type == "cuda":  # it returns before the card is done
            torch.cuda.synchronize(self._model.device)
        self.seconds += time.perf_counter() - start
        return logits
