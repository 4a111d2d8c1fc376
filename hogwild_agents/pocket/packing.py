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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hogwild_agents.pocket.teacher import Transcript

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


def pack(transcript: Transcript, headers: Sequence[Sequence[int]]) -> Packed:
    """Packs a transcript.

    Args:
        transcript: What was written, by whom, and when.
        headers: Ids of the header over the others' work, of the one over one's own, and of each
            worker's pause, as `Team.header_tokens` gives them.
    """
    layout, team = transcript.layout, range(transcript.workers)
    alone = layout == "solo"
    commits, live = layout in ("combined", "interleaved"), layout in ("combined", "contiguous")
    prompt = list(transcript.prompt[:-1] if alone else transcript.prompt)
    fixed = [list(header) for header in headers] if live else []

    # One row per token of a step: worker, step, written, learnt, begun, closes, closing.
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    ids: list[int] = []
    for worker in team:
        for number, step in enumerate(transcript.steps):
            if step.worker != worker:
                continue
            closes = step.closes if commits and step.closes is not None else NEVER
            begun, last = step.tokens[0].written, len(step.tokens) - 1
            for place, token in enumerate(step.tokens):
                closing = place == last and closes != NEVER
                ids.append(token.id)
                rows.append((worker, number, token.written, token.learnt, begun, closes, closing))
    owner, number, written, learnt, begun, closes, closing = np.array(rows, dtype=np.int64).T
    block = number if commits else owner  # what its offset counts in
    count = np.arange(len(rows))
    first = np.zeros(len(rows), dtype=np.int64)
    new = np.flatnonzero(np.diff(block, prepend=-1))
    first[new] = new
    offset = count - np.maximum.accumulate(first)

    # What each sees of the steps; a closing token has the blocks of the pass before in its view.
    arranged = written - closing
    committed = closes[None, :] <= arranged[:, None]
    own = (block[:, None] == block[None, :]) & (count[None, :] <= count[:, None])
    others = (
        (owner[:, None] != owner[None, :])
        & (written[None, :] <= written[:, None])
        & (begun[None, :] <= arranged[:, None])
    )
    unfinished = ~committed & (own | others if live else own)

    # Where the blocks of its view begin.
    base, size = len(prompt), [sum(map(len, fixed)), len(rows)]
    total = base + sum(size)
    here = slice(base + size[0], total)
    turns = np.zeros((1 + len(fixed) + len(team), total), dtype=np.int64)
    starts = np.zeros((len(fixed) + len(team), len(rows)), dtype=np.int64)
    seen = np.zeros((len(fixed), len(rows)), dtype=bool)
    cursor = base + committed.sum(1)
    if live and layout == "combined":
        starts[0], seen[0] = cursor, True
        cursor = cursor + len(fixed[0])
    for other in team if live else ():
        theirs = owner != other
        starts[len(fixed) + other] = cursor
        cursor = cursor + np.where(theirs, unfinished[:, owner == other].sum(1), 0)
        starts[2 + other], seen[2 + other] = cursor, theirs
        cursor = cursor + np.where(theirs, len(fixed[2 + other]), 0)
    if live and layout == "combined":
        starts[1], seen[1] = cursor, True
        cursor = cursor + len(fixed[1])
    for worker in team:
        starts[len(fixed) + worker, owner == worker] = cursor[owner == worker]
    turns[0, here] = cursor + offset
    turns[1:, here] = turns[0, here] - starts

    # Prompt and headers: each header follows the prompt and nothing else.
    visible = np.zeros((total, total), dtype=bool)
    in_history = np.zeros((total, total), dtype=bool)
    visible[:, :base] = in_history[:, :base] = np.tri(total, base, dtype=bool)
    turns[0, :base] = np.arange(base)
    offsets = np.zeros(total, dtype=np.int64)
    columns, column = [], base
    for index, header in enumerate(fixed):
        end = column + len(header)
        columns.append((column, end))
        offsets[column:end] = np.arange(len(header))
        turns[0, column:end] = base + offsets[column:end]
        turns[1 + index, column:end] = offsets[column:end]
        visible[column:end, column:end] = np.tri(len(header), dtype=bool)
        visible[here, column:end] = seen[index][:, None]
        column = end
    for worker in team:
        mine = np.flatnonzero(owner == worker)
        columns.append((column, column + len(mine)))
        column += len(mine)
    offsets[here] = offset
    visible[here, here] = committed | unfinished
    in_history[here, here] = committed

    # Where finished steps lie in the history: in the order of their commits, then of the team.
    history = np.zeros(total, dtype=np.int64)
    history[:base] = np.arange(base)
    place = base
    order = [(int(closes[i]), int(owner[i]), i) for i in new if closes[i] != NEVER]
    for _, _, start in sorted(order) if commits else ():
        length = int((number == number[start]).sum())
        history[here.start + start : here.start + start + length] = place + np.arange(length)
        place += length

    flat = [*prompt, *(token for header in fixed for token in header), *ids]
    targets = np.full(total, NO_TARGET, dtype=np.int64)
    follows = np.zeros(len(rows), dtype=bool)
    follows[:-1] = (number[:-1] == number[1:]) & (learnt[1:] == 1)
    targets[here][follows] = np.array([*ids[1:], 0])[follows]
    return Packed(
        torch.tensor(flat),
        torch.from_numpy(targets),
        torch.from_numpy(~visible),
        torch.from_numpy(in_history),
        columns,
        torch.from_numpy(turns),
        torch.from_numpy(history),
        torch.from_numpy(offsets),
    )


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
