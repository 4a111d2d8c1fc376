"""Log-probabilities of continuations, computed on the shared cache.

A forward pass gives the logits after the last token of each row only, so continuations are fed
token by token, as many at once as possible. A batch is one job of the engine:

- The common beginning of all contexts in a batch, such as the examples before each question, is the
  job's prompt: it is computed once, and the engine keeps it for later batches.
- The rest of each context is computed once, however many continuations it has; each continuation is
  a row that writes to a fork of it.
- A long continuation is several rows: it is computed in one pass, and each of its pieces is then
  fed to a fork that ends where the piece begins.
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
"""The smallest number of tokens in a piece."""

MAX_TOKENS = 16_384
"""Limit on the tokens of a batch, all of which must fit into the cache."""


class Pair(NamedTuple):
    """A continuation and its context, which has at least one token."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        """Context and continuation."""
        return self.context + self.continuation

    @property
    def starts(self) -> range:
        """Where pieces begin; a long continuation has about as many pieces as each has tokens."""
        size = max(PIECE, math.isqrt(len(self.continuation)))
        return range(len(self.context), len(self.context) + len(self.continuation), size)


class Score(NamedTuple):
    """The log-probability of a continuation, and whether greedy decoding would produce it."""

    log_probability: float
    greedy: bool


def batches(pairs: Sequence[Pair], rows: int) -> Iterator[list[int]]:
    """Indices of pairs that are scored together; pairs with equal beginnings are neighbours.

    Args:
        pairs: All pairs; pairs with an empty continuation are left out.
        rows: Limit on the pieces in a batch, unless a single pair has more.
    """
    batch: list[int] = []
    width = size = 0
    nonempty = [index for index, pair in enumerate(pairs) if pair.continuation]
    for index in sorted(nonempty, key=pairs.__getitem__):
        pieces, tokens = len(pairs[index].starts), len(pairs[index].whole)
        if batch and (width + pieces > rows or size + tokens > MAX_TOKENS):
            yield batch
            batch, width, size = [], 0, 0
        batch.append(index)
        width, size = width + pieces, size + tokens
    if batch:
        yield batch


class _Piece(NamedTuple):
    """A row that is fed token by token.

    Attributes:
        pair: Index of its pair.
        view: Blocks before the piece, without the last token; the last block is written to.
        tokens: That token, followed by those of the piece.
    """

    pair: int
    view: list[CacheBlock]
    tokens: tuple[int, ...]


class Scoring:
    """A batch as a job for `Engine.submit`; the result is a score for each pair, in order.

    Args:
        pairs: At least one; none has an empty continuation.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs
        self._shared = _common_prefix([pair.context[:-1] for pair in pairs])
        self._scores: list[Score] = []
        # The prompt of a job must not be empty.
        self.prompt: Sequence[int] = self._shared or pairs[0].context[:1]
        self.max_writers = sum(len(pair.starts) for pair in pairs)
        self.max_cache_tokens = sum(len(pair.whole) + len(pair.continuation) for pair in pairs)
        self.events: list[Any] = []

    def check(self, model: SharedCacheModel) -> None:
        """Checks that every pair fits the model.

        Raises:
            ContextLengthError: A pair does not fit.
        """
        longest = (
            max(len(pair.whole) for pair in self._pairs) - 1
        )  # the last token is only predicted
        if longest > model.max_length:
            raise ContextLengthError(
                f"A context and its continuation have {longest:,} tokens, but the model's limit is "
                f"{model.max_length:,}."
            )

    def run(self, lease: Lease) -> Steps:
        """Scores all pairs on the engine's thread, between two of its passes."""
        yield from ()  # the engine's own passes draw tokens, but this needs logits
        self._scores = self._score(lease)

    def hear(self, message: Any) -> None:
        """Ignores messages."""

    def stop(self) -> None:
        """Does nothing: the job ends soon by itself."""

    def result(
        self,
        usage: Usage,  # noqa: ARG002  passed by the engine
        error: BaseException | None,  # noqa: ARG002
        cancelled: bool,  # noqa: ARG002
    ) -> list[Score]:
        """The scores; empty if the job did not finish."""
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
            scores = _look_up(logits, [piece.tokens[at + 1] for piece in pieces])
            for piece, (log_probability, likeliest) in zip(pieces, scores, strict=True):
                sums[piece.pair] += log_probability
                greedy[piece.pair] &= likeliest
        return [*map(Score, sums, greedy)]

    def _laid_out(self, lease: Lease) -> list[_Piece]:
        """All pieces, with their contexts in the cache."""
        shared = [lease.prompt] if self._shared else []
        prefix = len(self._shared)
        texts = [pair.whole[prefix : pair.starts[-1] - 1] for pair in self._pairs]
        blocks = {text: lease.new_block() for text in dict.fromkeys(texts)}
        unread = [text for text in blocks if text]
        if unread:
            lease.model.forward([[*shared, blocks[text]] for text in unread], unread)
        pieces: list[_Piece] = []
        for index, (pair, text) in enumerate(zip(self._pairs, texts, strict=True)):
            for start in pair.starts:
                fork = lease.fork(blocks[text])
                fork.truncate(start - 1 - prefix)
                tokens = pair.whole[start - 1 : start + pair.starts.step]
                pieces.append(_Piece(index, [*shared, fork], tokens))
        return pieces


def _common_prefix(texts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The common prefix; that of the smallest and the largest tuple is common to all."""
    both = zip(min(texts), max(texts), strict=False)
    return tuple(token for token, _ in takewhile(lambda pair: pair[0] == pair[1], both))


def _look_up(logits: Tensor, tokens: Sequence[int]) -> Iterable[tuple[float, bool]]:
    """The log-probability of one token per row, and whether it is the most likely one."""
    chosen = logits.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0]
    log_probabilities = chosen - logits.logsumexp(-1)
    greedy = chosen == logits.amax(-1)
    return zip(log_probabilities.tolist(), greedy.tolist(), strict=True)
