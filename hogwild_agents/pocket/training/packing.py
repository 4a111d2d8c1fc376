"""Packing: a whole transcript of a team as one forward pass that can be trained on.

When a team decodes, every token is computed in some pass, in some worker's view. Packing puts all
tokens side by side. Each one sees what its worker saw in that pass, at the same distance: a
finished step lies in the history for the tokens that come after its commit, and in its worker's
block for those that come before. So a query needs one rotation for each block of its view and one
for the history, and a key needs two: by its position in the block and by that in the history.

`packed_attention.py` computes the attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hogwild_agents.pocket.training.teacher import TaughtTranscript

NEVER = 2**31 - 1
NO_TARGET = -100


@dataclass(frozen=True, slots=True)
class PackedTranscript:
    """A transcript of N tokens, ready to be trained on.

    Attributes:
        ids: Tokens, int64 [N]: prompt, headers, pauses, then what each worker wrote.
        targets: The next token that each one should predict, int64 [N]; `NO_TARGET` where nothing
            is learnt.
        hidden: Which token (row) does not see which (column), bool [N, N].
        committed: Which of the other columns lie in the history for a row, bool [N, N].
        block_columns: For each block, its first column and the one after its last.
        query_positions: Position of each query, counted from the start of the prompt (row 0) and of
            each block (the other rows), int64 [1 + blocks, N].
        history_positions: Position of each key in the history, int64 [N].
        block_positions: Position of each key in its block, int64 [N].
    """

    ids: Tensor
    targets: Tensor
    hidden: Tensor
    committed: Tensor
    block_columns: Sequence[tuple[int, int]]
    query_positions: Tensor
    history_positions: Tensor
    block_positions: Tensor

    def to(self, device: torch.device) -> PackedTranscript:
        """A copy on another device."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name in self.__slots__
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **moved)


class _Written(NamedTuple):
    """The M tokens that workers wrote, worker by worker; all arrays are int64 [M].

    Attributes:
        ids: The tokens.
        owner: Place of the worker.
        step: Number of the step.
        block: The block that it is written to: the number of its step where steps are committed,
            else the place of its worker.
        offset: Its position in the block.
        written: The pass that writes it.
        learnt: 1 if it is learnt, else 0.
        begun: The pass that begins its step.
        closes: The pass that commits its step, or `NEVER`.
        closing: 1 if it is the last token of a step that is committed, else 0.
    """

    ids: NDArray[np.int64]
    owner: NDArray[np.int64]
    step: NDArray[np.int64]
    block: NDArray[np.int64]
    offset: NDArray[np.int64]
    written: NDArray[np.int64]
    learnt: NDArray[np.int64]
    begun: NDArray[np.int64]
    closes: NDArray[np.int64]
    closing: NDArray[np.int64]


class _Sight(NamedTuple):
    """Which written token (row) sees which (column), bool [M, M].

    Attributes:
        committed: In the history.
        unfinished: In a block.
    """

    committed: NDArray[np.bool_]
    unfinished: NDArray[np.bool_]


class _Views(NamedTuple):
    """Where the blocks of each written token's view begin.

    Attributes:
        starts: Start of each header and of each worker's block, int64 [blocks, M]; of those in the
            view.
        seen: Which headers are in the view, bool [headers, M].
        own: Start of the token's own block, int64 [M].
    """

    starts: NDArray[np.int64]
    seen: NDArray[np.bool_]
    own: NDArray[np.int64]


class _Columns(NamedTuple):
    """Where the parts of a transcript lie among its N tokens.

    Attributes:
        prompt: Length of the prompt, which comes first.
        blocks: First column of each block and the one after its last: headers, then workers.
        headers: Number of headers.
    """

    prompt: int
    blocks: Sequence[tuple[int, int]]
    headers: int

    @property
    def total(self) -> int:
        """N."""
        return self.blocks[-1][1]

    @property
    def written(self) -> slice:
        """What the workers wrote."""
        return slice(self.blocks[self.headers][0], self.total)


def pack(transcript: TaughtTranscript, headers: Sequence[Sequence[int]]) -> PackedTranscript:
    """Packs a transcript.

    Args:
        transcript: What was written, by which worker, and when.
        headers: Ids of the header over the others' work, of the one over the own work, and of each
            worker's pause, as `Team.header_tokens` gives them.
    """
    shows_others = transcript.layout in ("combined", "contiguous")
    prompt = list(transcript.prompt[:-1] if transcript.layout == "solo" else transcript.prompt)
    fixed = [list(header) for header in headers] if shows_others else []
    written = _written(transcript)
    lengths = [*map(len, fixed), *np.bincount(written.owner, minlength=transcript.workers).tolist()]
    blocks = [*pairwise(accumulate(lengths, initial=len(prompt)))]
    columns = _Columns(len(prompt), blocks, len(fixed))

    sight = _sight(written, shows_others)
    views = _views(columns, written, sight, titled=transcript.layout == "combined")
    visible, committed = _masks(columns, sight, views)
    query_positions, history_positions, block_positions = _positions(columns, written, views)
    targets = np.full(columns.total, NO_TARGET, dtype=np.int64)
    targets[columns.written] = _targets(written)
    return PackedTranscript(
        ids=torch.tensor([*prompt, *chain(*fixed), *written.ids.tolist()]),
        targets=torch.from_numpy(targets),
        hidden=torch.from_numpy(~visible),
        committed=torch.from_numpy(committed),
        block_columns=blocks,
        query_positions=torch.from_numpy(query_positions),
        history_positions=torch.from_numpy(history_positions),
        block_positions=torch.from_numpy(block_positions),
    )


def _written(transcript: TaughtTranscript) -> _Written:
    """All tokens that workers wrote, as arrays."""
    commits = transcript.layout in ("combined", "interleaved")
    rows: list[tuple[int, ...]] = []
    for worker in range(transcript.workers):
        offset = 0
        for number, step in enumerate(transcript.steps):
            if step.worker != worker:
                continue
            if commits:
                offset = 0
            closes = step.closes if commits and step.closes is not None else NEVER
            begun, last = step.tokens[0].written, len(step.tokens) - 1
            for place, token in enumerate(step.tokens):
                where = (worker, number, number if commits else worker, offset + place)
                closing = place == last and closes != NEVER
                when = (token.written, token.learnt, begun, closes, closing)
                rows.append((token.id, *where, *when))
            offset += len(step.tokens)
    return _Written(*np.array(rows, dtype=np.int64).T)


def _targets(written: _Written) -> NDArray[np.int64]:
    """The next token of the same step, if it is learnt, int64 [M]."""
    targets = np.full(len(written.ids), NO_TARGET, dtype=np.int64)
    follows = (written.step[:-1] == written.step[1:]) & (written.learnt[1:] == 1)
    targets[:-1][follows] = written.ids[1:][follows]
    return targets


# What sees what.


def _sight(written: _Written, shows_others: bool) -> _Sight:
    """What each written token sees; unfinished steps of other workers only if `shows_others`."""
    # A step's last token is computed in the view of the pass before.
    view_pass = (written.written - written.closing)[:, None]
    committed = written.closes <= view_pass
    count = np.arange(len(written.ids))
    own = (written.block == written.block[:, None]) & (count <= count[:, None])
    others = written.owner != written.owner[:, None]
    others &= (written.written <= written.written[:, None]) & (written.begun <= view_pass)
    return _Sight(committed, ~committed & (own | others if shows_others else own))


def _masks(
    columns: _Columns, sight: _Sight, views: _Views
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What each of all tokens sees, and what of that lies in the history, bool [N, N]."""
    visible = np.zeros((columns.total, columns.total), dtype=bool)
    in_history = np.zeros_like(visible)
    prompt = np.tri(columns.total, columns.prompt, dtype=bool)
    visible[:, : columns.prompt] = in_history[:, : columns.prompt] = prompt
    here = columns.written
    visible[here, here] = sight.committed | sight.unfinished
    in_history[here, here] = sight.committed
    for index, (start, end) in enumerate(columns.blocks[: columns.headers]):
        header = slice(start, end)  # it sees the prompt and itself
        visible[header, header] = np.tri(end - start, dtype=bool)
        visible[here, header] = views.seen[index][:, None]
    return visible, in_history


# Where it lies.


def _views(columns: _Columns, written: _Written, sight: _Sight, *, titled: bool) -> _Views:
    """Lays out what each written token sees behind its history.

    Args:
        columns: The parts of the transcript.
        written: What the workers wrote.
        sight: What each token sees of it.
        titled: Whether headers stand over the others' and over the own work.
    """
    count, sizes = columns.headers, [end - start for start, end in columns.blocks]
    starts = np.zeros((len(sizes), len(written.ids)), dtype=np.int64)
    seen = np.zeros((count, len(written.ids)), dtype=bool)
    cursor = columns.prompt + sight.committed.sum(1)  # where each token's history ends
    if titled:
        starts[0], seen[0] = cursor, True
        cursor = cursor + sizes[0]
    for worker in range(len(sizes) - count) if count else ():
        viewers, pause = written.owner != worker, 2 + worker
        starts[count + worker] = cursor
        cursor = cursor + np.where(viewers, sight.unfinished[:, ~viewers].sum(1), 0)
        starts[pause], seen[pause] = cursor, viewers
        cursor = cursor + np.where(viewers, sizes[pause], 0)
    if titled:
        starts[1], seen[1] = cursor, True
        cursor = cursor + sizes[1]
    starts[count + written.owner, np.arange(len(written.ids))] = cursor
    return _Views(starts, seen, cursor)


def _positions(
    columns: _Columns, written: _Written, views: _Views
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Positions of all queries, of all keys in the history, and of all keys in their blocks."""
    base, here = columns.prompt, columns.written
    queries = np.zeros((1 + len(columns.blocks), columns.total), dtype=np.int64)
    history, offsets = np.zeros((2, columns.total), dtype=np.int64)
    queries[0, :base] = history[:base] = np.arange(base)
    queries[0, here] = views.own + written.offset
    queries[1:, here] = queries[0, here] - views.starts
    history[here] = _history(written, base)
    offsets[here] = written.offset
    for index, (start, end) in enumerate(columns.blocks[: columns.headers]):
        header, size = slice(start, end), end - start  # it follows the prompt
        queries[0, header] = base + np.arange(size)
        queries[1 + index, header] = offsets[header] = np.arange(size)
    return queries, history, offsets


def _history(written: _Written, base: int) -> NDArray[np.int64]:
    """Position of each written token in the history: by commits, then by places in the team."""
    positions = np.zeros_like(written.ids)
    order = [
        (written.closes[first], written.owner[first], written.step[first])
        for first in np.flatnonzero(written.offset == 0)
        if written.closes[first] != NEVER
    ]
    for _, _, step in sorted(order):
        members = written.step == step
        positions[members] = base + np.arange(members.sum())
        base += int(members.sum())
    return positions
