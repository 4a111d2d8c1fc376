"""Streams that write what a test gives them. Everything but the choice of tokens is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from hogwild_agents.engine import Engine, SamplerState, SamplingParams, SharedCacheModel
from hogwild_agents.engine.scheduling import executor
from hogwild_agents.team import Event, Result, Session, Team, TeamTokenizer
from hogwild_agents.team.workers import SEED_STRIDE
from tests.unit.engine.families import build
from tests.unit.team.scripted import TINY, Terse

WAIT = 30.0
"""Seconds after which a test gives up on something that should come at once."""

STEP = "Ok, so.\n\n"
"""A step of nine letters."""

FINISHER = -1
"""The index under which a test gives the text of the early finisher."""

Lines = Mapping[int, "str | Sequence[int]"]
"""By index in the team the text of each worker, and at the next index the reply, as text or ids.
When a text is over, its stream goes on with "x"."""

_SEED = 0
_INDICES = {(_SEED + index * SEED_STRIDE) % 2**64: index for index in range(9)}


@cache
def model() -> SharedCacheModel:
    """A tiny model."""
    return SharedCacheModel.from_pretrained(build(TINY), self_check=False)


def make(tokenizer: TeamTokenizer, **options: Any) -> Team:
    """Two workers with a short prompt, whose streams differ in their seeds."""
    defaults: dict[str, Any] = {"prompt": Terse(), "sampling": SamplingParams(seed=_SEED)}
    return Team(tokenizer, **(defaults | options))


@contextmanager
def voices(
    tokenizer: TeamTokenizer, lines: Lines, before: Callable[[int], None] = lambda _: None
) -> Iterator[Engine]:
    """An engine in which all streams write `lines`.

    Args:
        tokenizer: The tokenizer of the teams.
        lines: The texts.
        before: Called in each pass of thinking, with the number of passes before it, just before
            its tokens are drawn.
    """
    encode = tokenizer.encode
    texts = {
        index: encode(line) if isinstance(line, str) else line for index, line in lines.items()
    }
    filler = encode("x")[-1]
    passes = 0

    def choose(_: Any, samplers: Sequence[SamplerState], __: Any = None) -> Tensor:
        nonlocal passes
        indices = [_INDICES.get(sampler.seed, FINISHER) for sampler in samplers]
        if 0 in indices:
            before(passes)
            passes += 1
        drawn = []
        for sampler, index in zip(samplers, indices, strict=True):
            line = texts.get(index, ())
            drawn.append(line[sampler.draws] if sampler.draws < len(line) else filler)
        return torch.tensor(drawn)

    with mock.patch.object(executor, "choose", choose), Engine(model(), prefix_bytes=0) as engine:
        yield engine


def hold(
    session: Session, lines: Lines, before: Callable[[int], None] = lambda _: None
) -> tuple[Result, list[Event]]:
    """Runs a session in which all streams write `lines`; returns its result and its events."""
    with voices(session.team.tokenizer, lines, before) as engine:
        handle = engine.submit(session)
        return handle.result(WAIT), list(handle)
