"""Log-probabilities of continuations, computed on the shared cache.

A forward pass gives the logits after each row's last token, so continuations are fed token by
token, as many at once as possible. A batch is one job of the engine:

- What all contexts of a batch begin with, such as the examples before each question, is the job's
  prompt: read once, and kept by the engine for the batches to come.
- The rest of each context is read once, however many continuations it has: each of these is a row
  that writes to a fork of it.
- A long continuation is several rows: it is read in one go, and each of its pieces is fed to a fork
  that ends where the piece begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hogwild_agents.engine import CacheBlock, Lease, SharedCacheModel, Usage
from hogwild_agents.engine.scheduling.jobs import Steps
from hogwild_agents.errors import ContextLengthError

PIECE = 32
"""The least tokens of a piece."""

MOST_TOKENS = 16_384
"""Of a batch; all of them have to find room in the cache."""


class Pair(NamedTuple):
    """A continuation, and the tokens before it, of which there is at least one."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        """Both."""
        return self.context + self.continuation

    @property
    def starts(self) -> range:
        """Where pieces begin in the whole; about as many as each has tokens, if it is long."""
        size = max(PIECE, math.isqrt(len(self.continuation)))
        return range(len(self.context), len(self.context) + len(self.continuation), size)


class Score(NamedTuple):
    """What the log-probabilities of a continuation sum up to, and whether it is the likeliest."""

    log_probability: float
    greedy: bool


def batches(pairs: Sequence[Pair], rows: int) -> Iterator[list[int]]:
    """Indices of pairs that are scored together; those that begin alike are neighbours.

    Args:
        pairs: All of them; those without a continuation are left out.
        rows: The most pieces in a batch, unless one pair alone has more.
    """
    batch: list[int] = []
    width = size = 0
    something = [index for index, pair in enumerate(pairs) if pair.continuation]
    for index in sorted(something, key=pairs.__getitem__):
        wide, long = len(pairs[index].starts), len(pairs[index].whole)
        if batch and (width + wide > rows or size + long > MOST_TOKENS):
            yield batch
            batch, width, size = [], 0, 0
        batch.append(index)
        width, size = width + wide, size + long
    if batch:
        yield batch


class _Piece(NamedTuple):
    """A row that is fed.

    Attributes:
        pair: The index of the pair that it belongs to.
        view: What stands before the piece, but for one token; it writes to the last block.
        tokens: That token, and those of the piece.
    """

    pair: int
    view: list[CacheBlock]
    tokens: tuple[int, ...]


class Scoring:
    """A batch as a job for `Engine.submit`; its result is a score for each pair, in their order.

    Args:
        pairs: At least one; each has a continuation.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs
        self._shared = _common([pair.context[:-1] for pair in pairs])
        self._scores: list[Score] = []
        # A job's prompt cannot be empty.
        self.prompt: Sequence[int] = self._shared or pairs[0].context[:1]
        self.max_writers = sum(len(pair.starts) for pair in pairs)
        self.max_cache_tokens = sum(len(pair.whole) + len(pair.continuation) for pair in pairs)
        self.events: list[Any] = []

    def check(self, model: SharedCacheModel) -> None:
        """Looks whether every pair fits the model.

        Raises:
            ContextLengthError: One does not.
        """
        longest = max(len(pair.whole) for pair in self._pairs) - 1  # the last is only predicted
        if longest > model.max_length:
            raise ContextLengthError(
                f"A context and its continuation take {longest:,} tokens, and this model's limit "
                f"is {model.max_length:,}."
            )

    def run(self, lease: Lease) -> Steps:
        """Scores all pairs; on the engine's thread, between two of its passes."""
        yield from ()  # the engine's own passes draw tokens, and here logits are wanted
        self._scores = self._score(lease)

    def hear(self, message: Any) -> None:
        """Nothing can be said to it."""

    def stop(self) -> None:
        """It ends by itself, soon."""

    def result(
        self,
        usage: Usage,  # noqa: ARG002  what the engine passes
        error: BaseException | None,  # noqa: ARG002
        cancelled: bool,  # noqa: ARG002
    ) -> list[Score]:
        """The scores, or none if it came to no end."""
        return self._scores

    def _score(self, lease: Lease) -> list[Score]:
        sums, greedy = [0.0] * len(self._pairs), [True] * len(self._pairs)
        pieces = self._laid_out(lease)
        for at in count():
            pieces = [piece for piece in pieces if at + 1 < len(piece.tokens)]
            if not pieces:
                break
            logits = lease.model.forward(
                [piece.view for piece in pieces], [piece.tokens[at : at + 1] for piece in pieces]
            )
            found = _look_up(logits, [piece.tokens[at + 1] for piece in pieces])
            for piece, (log_probability, likeliest) in zip(pieces, found, strict=True):
                sums[piece.pair] += log_probability
                greedy[piece.pair] &= likeliest
        return [*map(Score, sums, greedy)]

    def _laid_out(self, lease: Lease) -> list[_Piece]:
        """All pieces, with what stands before them in the cache."""
        shared = [lease.prompt] if self._shared else []
        known = len(self._shared)
        texts = [pair.whole[known : pair.starts[-1] - 1] for pair in self._pairs]
        blocks = {text: lease.new_block() for text in dict.fromkeys(texts)}
        unread = [text for text in blocks if text]
        if unread:
            lease.model.forward([[*shared, blocks[text]] for text in unread], unread)
        pieces: list[_Piece] = []
        for index, (pair, text) in enumerate(zip(self._pairs, texts, strict=True)):
            for start in pair.starts:
                fork = lease.fork(blocks[text])
                fork.truncate(start - 1 - known)
                tokens = pair.whole[start - 1 : start + pair.starts.step]
                pieces.append(_Piece(index, [*shared, fork], tokens))
        return pieces


def _common(texts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all of them begin with; no two differ sooner than the least and the greatest."""
    both = zip(min(texts), max(texts), strict=False)
    return tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], both))


def _look_up(logits: Tensor, tokens: Sequence[int]) -> Iterable[tuple[float, bool]]:
    """For each row the log-probability of a token, and whether it is the likeliest."""
    own = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    sums = own - logits.logsumexp(-1)
    return zip(sums.tolist(), (own == logits.amax(-1)).tolist(), strict=True)
