"""Packing: a whole transcript of a team as one forward pass that can be trained on.

When a team decodes, every token is computed in some pass, in some worker's view. Packing lays all
tokens side by side and lets each see what its worker saw then, at the distance that it had then:
who looks after a step's commit finds it at its place in the history, and who looks before, in its
worker's block. One query therefore needs one rotation per block of its view, and a key needs two:
for its place in the block and for its place in the history.

`packed_attention` is registered with transformers, so that the model trained is an unmodified one.
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
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hogwild_agents.pocket.training.teacher import Transcript

NAME = "hogwild_packed"
"""What the attention is called in transformers' registry."""

NEVER = 2**31 - 1
NO_TARGET = -100


@dataclass(frozen=True, slots=True)
class Packed:
    """A transcript of N tokens, ready to be trained on.

    Attributes:
        ids: Tokens, int64 [N]: prompt, headers, pauses, then what each worker wrote.
        targets: What each one should predict, int64 [N]; `NO_TARGET` where nothing is learnt.
        hidden: Which token (row) does not see which (column), bool [N, N].
        committed: Of the others, which lie in the history for whoever looks, bool [N, N].
        columns: For each block, its first column and the one after its last.
        turns: How far each query stands from the start of the prompt (row 0) and of each block (the
            other rows), int64 [1 + blocks, N].
        history: Where each key lies in the history, int64 [N].
        offsets: Where each key lies in its block, int64 [N].
    """

    ids: Tensor
    targets: Tensor
    hidden: Tensor
    committed: Tensor
    columns: Sequence[tuple[int, int]]
    turns: Tensor
    history: Tensor
    offsets: Tensor

    def to(self, device: torch.device) -> Packed:
        """The same on another device."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name in self.__slots__
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **moved)


class _Rows(NamedTuple):
    """What workers wrote, worker by worker; of each of M tokens, int64 [M].

    Attributes:
        ids: The token.
        owner: Its worker.
        step: Its step.
        block: What it is written to: its step where steps are committed, else its worker's one.
        offset: Its place there.
        written: The pass that writes it.
        learnt: Whether it is learnt.
        begun: The pass that begins its step.
        closes: The pass that commits its step, or `NEVER`.
        closing: Whether it is the last token of a step that is committed.
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


class _Views(NamedTuple):
    """Where the blocks of each token's view begin.

    Attributes:
        starts: Of each header and each worker's block, int64 [blocks, M]; of those in the view.
        seen: Which headers are in the view, bool [headers, M].
        own: Where its own block begins, int64 [M].
    """

    starts: NDArray[np.int64]
    seen: NDArray[np.bool_]
    own: NDArray[np.int64]


def pack(transcript: Transcript, headers: Sequence[Sequence[int]]) -> Packed:
    """Packs a transcript.

    Args:
        transcript: What was written, by whom, and when.
        headers: Ids of the header over the others' work, of the one over one's own, and of each
            worker's pause, as `Team.header_tokens` gives them.
    """
    live = transcript.layout in ("combined", "contiguous")
    prompt = list(transcript.prompt[:-1] if transcript.layout == "solo" else transcript.prompt)
    fixed = [list(header) for header in headers] if live else []
    base, sizes = len(prompt), [*map(len, fixed)]
    rows = _rows(transcript)
    committed, unfinished = _sights(rows, live)
    views = _views(transcript, sizes, rows, base + committed.sum(1), unfinished)

    total = base + sum(sizes) + len(rows.ids)
    here = slice(total - len(rows.ids), total)
    turns = np.zeros((1 + len(views.starts), total), dtype=np.int64)
    turns[0, :base] = np.arange(base)
    turns[0, here] = views.own + rows.offset
    turns[1:, here] = turns[0, here] - views.starts
    history, offsets = np.zeros((2, total), dtype=np.int64)
    history[:base], history[here] = np.arange(base), _history(rows, base)
    offsets[here] = rows.offset
    visible = np.zeros((total, total), dtype=bool)
    in_history = np.zeros_like(visible)
    visible[:, :base] = in_history[:, :base] = np.tri(total, base, dtype=bool)
    visible[here, here], in_history[here, here] = committed | unfinished, committed
    written = np.bincount(rows.owner, minlength=transcript.workers).tolist()
    columns = [*pairwise(accumulate([*sizes, *written], initial=base))]
    for index, size in enumerate(sizes):  # each header follows the prompt and nothing else
        header = slice(*columns[index])
        offsets[header] = turns[1 + index, header] = np.arange(size)
        turns[0, header] = base + np.arange(size)
        visible[header, header] = np.tri(size, dtype=bool)
        visible[here, header] = views.seen[index][:, None]

    targets = np.full(total, NO_TARGET, dtype=np.int64)
    follows = (rows.step[:-1] == rows.step[1:]) & (rows.learnt[1:] == 1)
    targets[here][:-1][follows] = rows.ids[1:][follows]
    return Packed(
        torch.tensor([*prompt, *chain(*fixed), *rows.ids.tolist()]),
        torch.from_numpy(targets),
        torch.from_numpy(~visible),
        torch.from_numpy(in_history),
        columns,
        torch.from_numpy(turns),
        torch.from_numpy(history),
        torch.from_numpy(offsets),
    )


def _rows(transcript: Transcript) -> _Rows:
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
                stands = (worker, number, number if commits else worker, offset + place)
                closing = place == last and closes != NEVER
                when = (token.written, token.learnt, begun, closes, closing)
                rows.append((token.id, *stands, *when))
            offset += len(step.tokens)
    return _Rows(*np.array(rows, dtype=np.int64).T)


def _sights(rows: _Rows, live: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which token (row) sees which (column) in the history, and which in a block, bool [M, M]."""
    # A closing token has the blocks of the pass before in its view.
    arranged = (rows.written - rows.closing)[:, None]
    committed = rows.closes <= arranged
    count = np.arange(len(rows.ids))
    own = (rows.block == rows.block[:, None]) & (count <= count[:, None])
    others = rows.owner != rows.owner[:, None]
    others &= (rows.written <= rows.written[:, None]) & (rows.begun <= arranged)
    return committed, ~committed & (own | others if live else own)


def _views(
    transcript: Transcript,
    sizes: Sequence[int],
    rows: _Rows,
    cursor: NDArray[np.int64],
    unfinished: NDArray[np.bool_],
) -> _Views:
    """Lays out what each token sees behind its history.

    Args:
        transcript: Of whom.
        sizes: Of the headers, if any are shown.
        rows: What was written.
        cursor: Where each one's history ends.
        unfinished: What each one sees in blocks.
    """
    team, titled = range(transcript.workers), transcript.layout == "combined"
    starts = np.zeros((len(sizes) + len(team), len(rows.ids)), dtype=np.int64)
    seen = np.zeros((len(sizes), len(rows.ids)), dtype=bool)
    if titled:
        starts[0], seen[0] = cursor, True
        cursor = cursor + sizes[0]
    for other in team if sizes else ():
        theirs = rows.owner != other
        starts[len(sizes) + other] = cursor
        cursor = cursor + np.where(theirs, unfinished[:, ~theirs].sum(1), 0)
        starts[2 + other], seen[2 + other] = cursor, theirs
        cursor = cursor + np.where(theirs, sizes[2 + other], 0)
    if titled:
        starts[1], seen[1] = cursor, True
        cursor = cursor + sizes[1]
    starts[len(sizes) + rows.owner, np.arange(len(rows.ids))] = cursor
    return _Views(starts, seen, cursor)


def _history(rows: _Rows, base: int) -> NDArray[np.int64]:
    """Where each token lies in the history: in the order of commits, then of the team."""
    places = np.zeros_like(rows.ids)
    order = [
        (rows.closes[first], rows.owner[first], rows.step[first])
        for first in np.flatnonzero(rows.offset == 0)
        if rows.closes[first] != NEVER
    ]
    for _, _, step in sorted(order):
        mine = rows.step == step
        places[mine] = base + np.arange(mine.sum())
        base += int(mine.sum())
    return places


class Rotations:
    """Cosines and sines for one packed transcript; the same for all layers.

    Args:
        packed: The transcript.
        theta: Base of the rotary frequencies.
        size: Numbers of a head.
    """

    def __init__(self, packed: Packed, theta: float, size: int) -> None:
        self.packed = packed
        steps = torch.arange(0, size, 2, dtype=torch.float64, device=packed.turns.device)
        frequencies = theta ** (-steps / size)
        self.turns = _waves(packed.turns[:, None], frequencies)
        self.history = _waves(packed.history, frequencies)
        self.offsets = _waves(packed.offsets, frequencies)


def _waves(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    angles = positions[..., None].double() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().float(), angles.sin().float()


def _rotate(states: Tensor, waves: tuple[Tensor, Tensor]) -> Tensor:
    """States turned by position, the halves of a head paired as in Llama and Qwen."""
    cosines, sines = waves
    one, other = states.chunk(2, dim=-1)
    return states * cosines + torch.cat([-other, one], dim=-1) * sines


def packed_attention(
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _mask: Tensor | None,
    scaling: float,
    rotations: Rotations,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention over a packed transcript; queries, keys, values float32 [1, heads, N, size].

    They come unrotated: the model is given zeros as positions.
    """
    packed = rotations.packed
    queries = _rotate(query * scaling, rotations.turns)  # [1 + blocks, heads, N, size]
    scores = queries[0] @ _rotate(key[0], rotations.history).mT
    keys = _rotate(key[0], rotations.offsets)
    blocks = [
        queries[1 + block] @ keys[:, start:end].mT
        for block, (start, end) in enumerate(packed.columns)
    ]
    base = packed.columns[0][0]
    local = torch.cat([scores[..., :base], *blocks], dim=-1)
    scores = torch.where(packed.committed, scores, local)
    weights = scores.masked_fill_(packed.hidden, -torch.inf).softmax(-1)
    return (weights @ value[0]).transpose(0, 1)[None], None


ALL_ATTENTION_FUNCTIONS.register(NAME, packed_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, lambda *_, **__: None)
