"""From logits to tokens: greedy or sampled, all rows of a pass at once.

Every stream draws from its own sequence of random numbers, a function of its seed and of how many
tokens it has drawn and of nothing else. A seeded stream therefore repeats its choices whatever else
is in the batch, on whatever device, also after it was swapped out or forked.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hogwild_agents.errors import InvalidSamplingError


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one stream chooses its tokens. Filters apply in the order in which they stand here.

    Attributes:
        repetition_penalty: Divides the positive logits and multiplies the negative ones of tokens
            that the stream has read or written (Keskar et al., arXiv 1909.05858); 1 is off.
        presence_penalty: Subtracted from the logits of tokens that the stream has written.
        frequency_penalty: Subtracted once for each time the stream has written a token.
        banned: Token ids never chosen.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Keeps the k likeliest tokens; 0 keeps all.
        top_p: Keeps the likeliest tokens whose probabilities reach p together (Holtzman et al.,
            arXiv 1904.09751).
        min_p: Keeps tokens at least this likely relative to the likeliest (Nguyen et al., arXiv
            2407.01082).
        seed: Makes the choices repeatable; drawn from the system if None.
    """

    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    banned: frozenset[int] = frozenset()
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuses values outside of their range."""
        try:
            object.__setattr__(self, "banned", frozenset(self.banned))
            self._validate()
        except TypeError as error:
            raise InvalidSamplingError(
                f"{self} holds something of a wrong type: {error}."
            ) from error

    def _validate(self) -> None:
        rules = {
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "above 0 (1 is off)"),
            "presence_penalty": (math.isfinite(self.presence_penalty), "a finite number"),
            "frequency_penalty": (math.isfinite(self.frequency_penalty), "a finite number"),
            "banned": (all(token >= 0 for token in self.banned), "token ids of 0 and more"),
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or more"),
            "top_k": (self.top_k >= 0, "0 (off) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            "min_p": (0 <= self.min_p <= 1, "between 0 (off) and 1"),
            "seed": (self.seed is None or 0 <= self.seed < 2**64, "between 0 and 2**64 - 1"),
        }
        for name, (fine, expected) in rules.items():
            if not fine:
                raise InvalidSamplingError(
                    f"{name}={getattr(self, name)!r} is out of range: it must be {expected}."
                )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature == 0 or self.top_k == 1

    @property
    def penalised(self) -> bool:
        """Whether choices depend on earlier tokens."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )


@dataclass(slots=True)
class SamplerState:
    """One stream's memory between draws.

    Attributes:
        params: How it chooses.
        read: Ids that it was given to read; only penalties look at them.
        seed: Its seed, from `params` or drawn.
        draws: Tokens drawn so far.
        written: How often it wrote each token.
    """

    params: SamplingParams
    read: frozenset[int] = frozenset()
    seed: int = field(init=False)
    draws: int = field(init=False, default=0)
    written: Counter[int] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        """Draws a seed where none was given."""
        self.seed = secrets.randbits(64) if self.params.seed is None else self.params.seed

    def fork(self) -> SamplerState:
        """A twin that continues with the same random numbers."""
        twin = SamplerState(self.params, self.read)
        twin.seed, twin.draws, twin.written = self.seed, self.draws, self.written.copy()
        return twin

    def number(self) -> float:
        """The random number of its next draw, in [0, 1).

        By Philox (Salmon et al., 2011), keyed by the seed and counted by the draws.
        """
        bits = np.random.Philox(key=self.seed, counter=self.draws)
        return float(np.random.Generator(bits).random())


BROKEN, STUCK = -1, -2
"""What `choose` gives instead of a token: the logits hold NaN or infinity, or nothing is left."""


def sample(
    logits: Tensor, samplers: Sequence[SamplerState], allowed: Tensor | None = None
) -> list[int]:
    """Chooses the next token of every stream, and notes it there.

    Args:
        logits: [rows, vocab], as `SharedCacheModel.forward` returns them; not changed.
        samplers: One per row.
        allowed: bool [rows, vocab], the tokens that a grammar allows, or None for all.

    Returns:
        One token id per row.

    Raises:
        InvalidSamplingError: A row has no token left to choose from or holds NaN (an idle worker),
            or `banned` names a token beyond the vocabulary. No stream is changed.
    """
    return note(choose(logits, samplers, allowed).tolist(), samplers)


def choose(
    logits: Tensor, samplers: Sequence[SamplerState], allowed: Tensor | None = None
) -> Tensor:
    """As `sample`, but on the device, without waiting for it, and without a note in the streams.

    Returns:
        int64 [rows]: token ids, `BROKEN` or `STUCK`; for `note`, once they are on the host.

    Raises:
        InvalidSamplingError: `banned` names a token beyond the vocabulary.
    """
    if logits.shape[0] != len(samplers):
        raise InvalidSamplingError(
            f"{logits.shape[0]} rows of logits but {len(samplers)} samplers: give one per row."
        )
    logits = logits.float().clone()
    broken = (logits.isnan() | (logits == torch.inf)).any(-1)
    params = [sampler.params for sampler in samplers]
    _penalise(logits, samplers)
    _ban(logits, params)
    if allowed is not None:
        logits.masked_fill_(~allowed, -torch.inf)
    stuck = ~(logits > -torch.inf).any(-1)
    tokens = logits.argmax(-1)
    sampled = [row for row, given in enumerate(params) if not given.greedy]
    if sampled:
        rows = torch.tensor(sampled).to(logits.device, non_blocking=True)
        tokens[rows] = _draw(logits[rows], [samplers[row] for row in sampled])
    return tokens.masked_fill(stuck, STUCK).masked_fill(broken, BROKEN)


def note(chosen: Sequence[int], samplers: Sequence[SamplerState]) -> list[int]:
    """Notes in every stream the token that was chosen for it.

    Raises:
        InvalidSamplingError: A row has none; no stream is changed.
    """
    for problem, why in (
        (BROKEN, "The logits of rows {} hold NaN or infinity: leave idle workers out."),
        (STUCK, "Rows {} have no token left to choose: grammar and banned tokens exclude all."),
    ):
        rows = [row for row, token in enumerate(chosen) if token == problem]
        if rows:
            raise InvalidSamplingError(why.format(rows))
    for sampler, token in zip(samplers, chosen, strict=True):
        sampler.draws += 1
        sampler.written[token] += 1
    return list(chosen)


def _penalise(logits: Tensor, samplers: Sequence[SamplerState]) -> None:
    for row, sampler in enumerate(samplers):
        params = sampler.params
        if not params.penalised:
            continue
        predicted = [t for t in sampler.read | sampler.written.keys() if t < logits.shape[1]]
        known = torch.tensor(predicted, dtype=torch.int64, device=logits.device)
        scores = logits[row, known]
        scaled = scores * params.repetition_penalty
        logits[row, known] = torch.where(scores < 0, scaled, scores / params.repetition_penalty)
        said = torch.tensor(list(sampler.written), dtype=torch.int64, device=logits.device)
        times = torch.tensor(list(sampler.written.values()), device=logits.device)
        logits[row, said] -= params.presence_penalty + params.frequency_penalty * times


def _ban(logits: Tensor, params: Sequence[SamplingParams]) -> None:
    for row, given in enumerate(params):
        if not given.banned:
            continue
        last = _last(given.banned)
        if last >= logits.shape[1]:
            raise InvalidSamplingError(
                f"banned names token {last}, but the vocabulary ends at {logits.shape[1] - 1}."
            )
        logits[row, _ids(given.banned, logits.device)] = -torch.inf


_last = lru_cache(maxsize=64)(max)
"""The largest of some token ids."""


@lru_cache(maxsize=64)
def _ids(tokens: frozenset[int], device: torch.device) -> Tensor:
    """Ids in ascending order, on the device; sets of hundreds come back in every pass."""
    return torch.tensor(sorted(tokens), dtype=torch.int64, device=device)


def _draw(logits: Tensor, samplers: Sequence[SamplerState]) -> Tensor:
    """Filters and draws: int64 [rows]. No row's choice depends on another's.

    What the rows want goes to the device in one copy, which nobody waits for.
    """
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    params = [sampler.params for sampler in samplers]
    wanted = [
        (p.temperature, p.top_k, p.top_p, p.min_p, sampler.number())
        for p, sampler in zip(params, samplers, strict=True)
    ]
    columns = torch.tensor(wanted, dtype=precise).to(logits.device, non_blocking=True)
    temperature, top_k, top_p, min_p, number = columns.T[:, :, None]

    logits = logits - logits.amax(-1, keepdim=True)  # so that no small temperature overflows
    logits = logits / temperature.float()
    most = max(p.top_k for p in params)
    if most:
        most = min(most, logits.shape[1])
        best = logits.topk(most).values
        least = best.gather(1, top_k.long().clamp(1, most) - 1)
        logits = logits.masked_fill((logits < least) & (top_k > 0), -torch.inf)
    chances = logits.softmax(-1)
    if any(p.top_p < 1 for p in params):
        ranked = chances.sort(descending=True).values
        reached = ranked.cumsum(-1) - ranked  # by the likelier tokens
        enough = reached >= top_p.float()
        least = ranked.masked_fill(enough, torch.inf).amin(-1, keepdim=True)
        chances = chances.masked_fill((chances < least) & (top_p < 1), 0)
    chances = chances.masked_fill(chances < min_p.float() * chances.amax(-1, keepdim=True), 0)
    # Inverse of the cumulative distribution: one random number per row, whatever the vocabulary.
    heights = chances.to(precise).cumsum(-1)
    total = heights[:, -1:]
    points = torch.minimum(number * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(heights, points, right=True).squeeze(1)
