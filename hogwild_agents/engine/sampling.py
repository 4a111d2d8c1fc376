"""From logits to tokens: greedy or sampled, all rows of a pass at once.

Every sampler draws from its own sequence of random numbers, which depends on its seed and on how
many tokens it has drawn, and on nothing else. A seeded sampler therefore repeats its choices
whatever else is in the batch, on any device, and also after a preemption or a fork.
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
    """How one sampler chooses its tokens. The filters are applied in the order given here.

    Attributes:
        repetition_penalty: Divides the positive logits and multiplies the negative ones of tokens
            that were read or written (Keskar et al., arXiv 1909.05858); 1 is off.
        presence_penalty: Subtracted from the logits of tokens that were written.
        frequency_penalty: Subtracted once for each time that a token was written.
        banned: Token ids that are never chosen.
        temperature: Divides the logits; 0 takes the most likely token.
        top_k: Keeps the k most likely tokens; 0 keeps all.
        top_p: Keeps the most likely tokens whose probabilities add up to p (Holtzman et al., arXiv
            1904.09751).
        min_p: Keeps tokens whose probability is at least this share of the highest one (Nguyen et
            al., arXiv 2407.01082).
        seed: Makes the choices repeatable; None draws a seed from the operating system.
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
        """Validates all values.

        Raises:
            InvalidSamplingError: A value is out of range or has a wrong type.
        """
        try:
            object.__setattr__(self, "banned", frozenset(self.banned))
            self._validate()
        except TypeError as error:
            raise InvalidSamplingError(f"{self} has a value of a wrong type: {error}.") from error

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
        for name, (valid, expected) in rules.items():
            if not valid:
                raise InvalidSamplingError(
                    f"{name}={getattr(self, name)!r} is out of range: it must be {expected}."
                )

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken."""
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
    """The state of one sampler between draws.

    Attributes:
        params: How it chooses.
        read: Token ids in its context; only penalties use them.
        seed: The seed of `params`, or one drawn from the operating system.
        draws: Number of tokens drawn so far.
        written: How often each token was drawn.
    """

    params: SamplingParams
    read: frozenset[int] = frozenset()
    seed: int = field(init=False)
    draws: int = field(init=False, default=0)
    written: Counter[int] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        """Draws a seed if `params` has none."""
        self.seed = secrets.randbits(64) if self.params.seed is None else self.params.seed

    def fork(self) -> SamplerState:
        """A twin that continues with the same random numbers."""
        twin = SamplerState(self.params, self.read)
        twin.seed, twin.draws, twin.written = self.seed, self.draws, self.written.copy()
        return twin

    def uniform(self) -> float:
        """The random number of the next draw, uniform in [0, 1).

        From Philox (Salmon et al., 2011), with the seed as key and the number of draws as counter.
        """
        bits = np.random.Philox(key=self.seed, counter=self.draws)
        return float(np.random.Generator(bits).random())


NOT_FINITE, NOTHING_LEFT = -1, -2
"""What `choose` returns instead of a token: the logits hold NaN or infinity, or the filters and the
grammar exclude every token."""


def sample(
    logits: Tensor, samplers: Sequence[SamplerState], allowed: Tensor | None = None
) -> list[int]:
    """Chooses the next token of every row, and records it in the row's sampler.

    Args:
        logits: [rows, vocab], as `SharedCacheModel.forward` returns them; not changed.
        samplers: One per row.
        allowed: bool [rows, vocab], the tokens that a grammar allows, or None for all.

    Returns:
        One token id per row.

    Raises:
        InvalidSamplingError: A row has no token left to choose from or holds NaN (an idle worker),
            or `banned` names a token beyond the vocabulary. No sampler is changed.
    """
    return record(choose(logits, samplers, allowed).tolist(), samplers)


def choose(
    logits: Tensor, samplers: Sequence[SamplerState], allowed: Tensor | None = None
) -> Tensor:
    """The part of `sample` that runs on the device; it does not wait, and changes no sampler.

    Returns:
        int64 [rows]: token ids, `NOT_FINITE` or `NOTHING_LEFT`, for `record`.

    Raises:
        InvalidSamplingError: `banned` names a token beyond the vocabulary.
    """
    if logits.shape[0] != len(samplers):
        raise InvalidSamplingError(
            f"{logits.shape[0]} rows of logits but {len(samplers)} samplers: give one per row."
        )
    logits = logits.float().clone()
    not_finite = (logits.isnan() | (logits == torch.inf)).any(-1)
    params = [sampler.params for sampler in samplers]
    _penalise(logits, samplers)
    _ban(logits, params)
    if allowed is not None:
        logits.masked_fill_(~allowed, -torch.inf)
    nothing_left = ~(logits > -torch.inf).any(-1)
    tokens = logits.argmax(-1)
    sampled = [row for row, p in enumerate(params) if not p.greedy]
    if sampled:
        rows = torch.tensor(sampled).to(logits.device, non_blocking=True)
        tokens[rows] = _draw(logits[rows], [samplers[row] for row in sampled])
    return tokens.masked_fill(nothing_left, NOTHING_LEFT).masked_fill(not_finite, NOT_FINITE)


def record(chosen: Sequence[int], samplers: Sequence[SamplerState]) -> list[int]:
    """Records in every sampler the token that `choose` chose for it.

    Raises:
        InvalidSamplingError: A row has no token; no sampler is changed.
    """
    for code, message in (
        (NOT_FINITE, "The logits of rows {} hold NaN or infinity: leave idle workers out."),
        (
            NOTHING_LEFT,
            "Rows {} have no token left to choose: grammar and banned tokens exclude all.",
        ),
    ):
        rows = [row for row, token in enumerate(chosen) if token == code]
        if rows:
            raise InvalidSamplingError(message.format(rows))
    for sampler, token in zip(samplers, chosen, strict=True):
        sampler.draws += 1
        sampler.written[token] += 1
    return list(chosen)


def _penalise(logits: Tensor, samplers: Sequence[SamplerState]) -> None:
    for row, sampler in enumerate(samplers):
        params = sampler.params
        if not params.penalised:
            continue
        seen = [t for t in sampler.read | sampler.written.keys() if t < logits.shape[1]]
        ids = torch.tensor(seen, dtype=torch.int64, device=logits.device)
        scores = logits[row, ids]
        scaled = scores * params.repetition_penalty
        logits[row, ids] = torch.where(scores < 0, scaled, scores / params.repetition_penalty)
        ids = torch.tensor(list(sampler.written), dtype=torch.int64, device=logits.device)
        counts = torch.tensor(list(sampler.written.values()), device=logits.device)
        logits[row, ids] -= params.presence_penalty + params.frequency_penalty * counts


def _ban(logits: Tensor, params: Sequence[SamplingParams]) -> None:
    for row, p in enumerate(params):
        if not p.banned:
            continue
        last = _last(p.banned)
        if last >= logits.shape[1]:
            raise InvalidSamplingError(
                f"banned names token {last}, but the vocabulary ends at {logits.shape[1] - 1}."
            )
        logits[row, _ids(p.banned, logits.device)] = -torch.inf


_last = lru_cache(maxsize=64)(max)
"""The largest of some token ids."""


@lru_cache(maxsize=64)
def _ids(tokens: frozenset[int], device: torch.device) -> Tensor:
    """Ids in ascending order, on the device; cached, as a set may hold hundreds."""
    return torch.tensor(sorted(tokens), dtype=torch.int64, device=device)


def _draw(logits: Tensor, samplers: Sequence[SamplerState]) -> Tensor:
    """Filters and draws: int64 [rows]. No row's choice depends on another's.

    All parameters go to the device in one copy, without waiting for it.
    """
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    params = [sampler.params for sampler in samplers]
    values = [
        (p.temperature, p.top_k, p.top_p, p.min_p, sampler.uniform())
        for p, sampler in zip(params, samplers, strict=True)
    ]
    columns = torch.tensor(values, dtype=precise).to(logits.device, non_blocking=True)
    temperature, top_k, top_p, min_p, uniform = columns.T[:, :, None]

    logits = logits - logits.amax(-1, keepdim=True)  # so that no small temperature overflows
    logits = logits / temperature.float()
    max_k = max(p.top_k for p in params)
    if max_k:
        max_k = min(max_k, logits.shape[1])
        best = logits.topk(max_k).values
        threshold = best.gather(1, top_k.long().clamp(1, max_k) - 1)
        logits = logits.masked_fill((logits < threshold) & (top_k > 0), -torch.inf)
    probs = logits.softmax(-1)
    if any(p.top_p < 1 for p in params):
        ranked = probs.sort(descending=True).values
        before = ranked.cumsum(-1) - ranked  # the sum of all more likely tokens
        threshold = ranked.masked_fill(before >= top_p.float(), torch.inf).amin(-1, keepdim=True)
        probs = probs.masked_fill((probs < threshold) & (top_p < 1), 0)
    probs = probs.masked_fill(probs < min_p.float() * probs.amax(-1, keepdim=True), 0)
    # Inverse of the cumulative distribution: one random number per row, whatever the vocabulary.
    cumulative = probs.to(precise).cumsum(-1)
    total = cumulative[:, -1:]
    points = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, points, right=True).squeeze(1)
