"""What a pass is made of: views and tokens are checked, become rows, and are cut into runs."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from hogwild_agents.engine.attention.interface import Row
from hogwild_agents.engine.cache.blocks import CacheBlock, require_usable
from hogwild_agents.engine.cache.pages import Ints
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.errors import ContextLengthError, InvalidTokensError, InvalidViewError

View = Sequence[CacheBlock]
"""The blocks that a worker attends to, in order; it writes to the last one."""

Tokens = Sequence[int] | np.ndarray[Any, Any] | Tensor
"""Token ids in any flat form."""

MAX_RUN_TOKENS = 1024
"""The most tokens in one run of the model, where a pass may be cut: bounds the memory that a long
prompt takes."""


def check_view(view: object, pool: CachePool, worker: int) -> None:
    """Refuses what is not a view.

    Args:
        view: To be checked.
        pool: The pool that its blocks must belong to.
        worker: For error messages.

    Raises:
        InvalidViewError: It is not a sequence of blocks, is empty, or holds a block twice.
        InvalidBlockError: A block is freed or belongs to another model.
    """
    if not isinstance(view, Sequence) or not all(isinstance(block, CacheBlock) for block in view):
        raise InvalidViewError(
            f"The view of worker {worker} is {reprlib.repr(view)}: a view is a list of blocks made "
            "by new_block()."
        )
    if not view:
        raise InvalidViewError(
            f"The view of worker {worker} holds no block: it needs at least the one that the "
            "worker writes to, as its last."
        )
    require_usable(pool, *view)
    if len(set(view)) < len(view):
        second = next(index for index, block in enumerate(view) if block in view[:index])
        raise InvalidViewError(
            f"The view of worker {worker} holds the same block twice, the second time at {second}: "
            "use fork() to show one text in two places."
        )


def check_tokens(tokens: Tokens, vocab_size: int, owner: str) -> Ints:
    """Token ids as a new array: int64 [count].

    Args:
        tokens: To be checked.
        vocab_size: Every id must be below.
        owner: Whose tokens they are; error messages begin with it.

    Raises:
        InvalidTokensError: They are not a flat list of whole numbers, or an id is out of range.
    """
    if isinstance(tokens, Tensor):
        tensor = tokens.detach().cpu()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    else:
        try:
            array = np.asarray(tokens)
        except ValueError as error:  # lists of different lengths
            raise InvalidTokensError(
                f"{owner} has tokens that are not a flat list of whole numbers: {error}"
            ) from error
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidTokensError(
            f"{owner} has tokens of type {array.dtype} and shape {array.shape}: give a flat list "
            "of whole numbers."
        )
    if int(array.min()) < 0 or int(array.max()) >= vocab_size:
        wrong = array[(array < 0) | (array >= vocab_size)][0]
        raise InvalidTokensError(
            f"{owner} has token id {wrong}, but this model's ids run from 0 to {vocab_size - 1}: "
            "is this its own tokenizer?"
        )
    return array.astype(np.int64)


def make_rows(views: Sequence[View], tokens: Sequence[Ints], max_length: int) -> list[Row]:
    """The rows of a pass; workers without tokens have none.

    Args:
        views: Per worker, its checked view.
        tokens: Per worker, its checked tokens.
        max_length: The most tokens that a view may hold.

    Raises:
        InvalidViewError: Two workers write to one block.
        ContextLengthError: A view would hold too many tokens.
    """
    growth: dict[CacheBlock, int] = {}
    writers: dict[CacheBlock, int] = {}
    for worker, (view, ids) in enumerate(zip(views, tokens, strict=True)):
        if not len(ids):
            continue
        block = view[-1]
        if block in writers:
            raise InvalidViewError(
                f"Workers {writers[block]} and {worker} both write to {block!r}: each worker needs "
                "a block of its own at the end of its view."
            )
        writers[block], growth[block] = worker, len(ids)
    rows = []
    for worker, (view, ids) in enumerate(zip(views, tokens, strict=True)):
        starts, length = [], 0
        for block in view:
            starts.append(length)
            length += len(block) + growth.get(block, 0)
        if length > max_length:
            raise ContextLengthError(
                f"The view of worker {worker} would hold {length:,} tokens, "
                f"{length - max_length:,} more than the {max_length:,} that this model was loaded "
                "for. Clear or shorten blocks, or see max_length in from_pretrained."
            )
        if len(ids):
            rows.append(Row(worker, view, ids, starts, len(view[-1])))
    return rows


def cut_rows(rows: Sequence[Row]) -> list[list[Row]]:
    """Cuts a pass into runs of about `MAX_RUN_TOKENS` tokens, without changing what it computes.

    Rows stay together if one of them sees what another one writes. Any other row may be cut into
    chunks: its later tokens find the earlier ones in the cache.
    """
    if sum(row.count for row in rows) <= MAX_RUN_TOKENS:
        return [[*rows]]
    runs: list[list[Row]] = []
    space = 0
    for group in _groups(rows):
        count = sum(row.count for row in group)
        if count > space:
            runs.append([])
            space = MAX_RUN_TOKENS
        runs[-1] += group
        space -= count
    return runs


def _groups(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows that must run together. A row that may run alone comes in chunks."""
    writer = {row.view[-1]: index for index, row in enumerate(rows)}
    group_of = list(range(len(rows)))
    for index, row in enumerate(rows):
        for block in row.view[:-1]:
            other = writer.get(block)
            if other is not None:
                old, new = group_of[other], group_of[index]
                group_of = [new if group == old else group for group in group_of]
    for group in dict.fromkeys(group_of):
        members = [row for row, number in zip(rows, group_of, strict=True) if number == group]
        if len(members) > 1:
            yield members
            continue
        (row,) = members
        for start in range(0, row.count, MAX_RUN_TOKENS):
            chunk = row.tokens[start : start + MAX_RUN_TOKENS]
            yield [Row(row.worker, row.view, chunk, row.starts, row.position + start)]
