"""Streams that say what a test wants, whatever they see. All but the choice of tokens is real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from hogwild_agents.engine import Engine, SamplerState, SamplingParams, SharedCacheModel
from hogwild_agents.engine.scheduling import executor as passes
from hogwild_agents.team import Event, Result, Session, Team, TeamTokenizer
from hogwild_agents.team.workers import SEED_STRIDE
from tests.unit.engine.families import build
from tests.unit.team.scripted import TINY, Terse

WAIT = 30.0
"""Seconds after which a test gives up on what should come at once."""

STEP = "Ok, so.\n\n"
"""A step of nine letters."""

FINISHER = -1
"""Where a test says what the early finisher writes."""

Lines = Mapping[int, "str | Sequence[int]"]
"""By place in the team what each worker says, and at the next place the reply, as text or ids; when
that is over they say "x"."""

_SEED = 0
_PLACES = {(_SEED + place * SEED_STRIDE) % 2**64: place for place in range(9)}


@cache
def model() -> SharedCacheModel:
    """A tiny one."""
    return SharedCacheModel.from_pretrained(build(TINY), self_check=False)


def make(tokenizer: TeamTokenizer, **options: Any) -> Team:
    """Two workers who are told little, and whose streams can be told apart."""
    told: dict[str, Any] = {"prompt": Terse(), "sampling": SamplingParams(seed=_SEED)}
    return Team(tokenizer, **(told | options))


@contextmanager
def voices(
    tokenizer: TeamTokenizer, lines: Lines, before: Callable[[int], None] = lambda _: None
) -> Iterator[Engine]:
    """An engine in which all streams say `lines`.

    Args:
        tokenizer: Of their teams.
        lines: What they say.
        before: Called with the number of passes of thinking until then, before each one's tokens
            are handed out.
    """
    encode = tokenizer.encode
    said = {place: encode(line) if isinstance(line, str) else line for place, line in lines.items()}
    filler = encode("x")[-1]
    thought = 0

    def choose(_: Any, samplers: Sequence[SamplerState], __: Any = None) -> Tensor:
        nonlocal thought
        places = [_PLACES.get(sampler.seed, FINISHER) for sampler in samplers]
        if 0 in places:
            before(thought)
            thought += 1
        drawn = []
        for sampler, place in zip(samplers, places, strict=True):
            line = said.get(place, ())
            drawn.append(line[sampler.draws] if sampler.draws < len(line) else filler)
        return torch.tensor(drawn)

    with mock.patch.object(passes, "choose", choose), Engine(model(), prefix_bytes=0) as engine:
        yield engine


def hold(
    session: Session, lines: Lines, before: Callable[[int], None] = lambda _: None
) -> tuple[Result, list[Event]]:
    """Runs a session in which all say `lines`: its result and its events."""
    with voices(session.team.tokenizer, lines, before) as engine:
        handle = engine.submit(session)
        return handle.result(WAIT), list(handle)
