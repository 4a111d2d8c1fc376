"""The Triton kernels: write, attend, merge, commit.

Shapes are those of `tiles.py`. Storage is [kv_heads, slots, dim] per layer. Scores are kept in
units of log 2, and softmax sums in float32, as in FlashAttention-2 (Dao, arXiv 2307.08691); what
several programs come to for one query is merged as in Flash-Decoding (Dao et al., 2023). New here:
a tile holds the queries of all workers of a team, each turned to the place at which its own view
holds the block, so that keys and values are loaded once for all of them.

Under `TRITON_INTERPRET=1` the same code runs on a CPU. There a product of bfloat16 tiles is wrong
(Triton 3.9), so `EXACT` computes all products in float32.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def write(
    key,
    value,
    keys,
    values,
    slots,
    key_head,
    key_token,
    value_head,
    value_token,
    room,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Puts one token's key and value of one head into its slot. Grid: tokens, kv_heads."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    slot = tl.load(slots + token)
    if slot < 0:
        return
    at = tl.arange(0, WIDTH)
    where = head * room + slot
    new_key = tl.load(key + head * key_head + token * key_token + at, mask=at < DIM)
    start = value + head * value_head + token * value_token
    new_value = tl.load(start + at, mask=at < VALUE_DIM, other=0.0)
    # Who does not see a token gives it the weight 0, and 0 x NaN would be NaN. Scores are masked,
    # so what is no number goes into the key: it reaches those who see it, and nobody else.
    sound = tl.min((tl.abs(new_value.to(tl.float32)) < float("inf")).to(tl.int32), 0) != 0
    new_key = tl.where(sound, new_key.to(tl.float32), float("nan"))
    new_value = tl.where(sound, new_value.to(tl.float32), 0.0)
    tl.store(keys + where * DIM + at, new_key.to(keys.dtype.element_ty), mask=at < DIM)
    start = values + where * VALUE_DIM
    tl.store(start + at, new_value.to(values.dtype.element_ty), mask=at < VALUE_DIM)


@triton.jit
def attend(
    query,
    keys,
    values,
    sums,
    peaks,
    items,
    queries,
    turns,
    angles,
    partner,
    query_head,
    query_token,
    room,
    heads,
    scaling,
    softcap,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WINDOW: tl.constexpr,
    CAPPED: tl.constexpr,
    TURNING: tl.constexpr,
    EXACT: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    WIDTH: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):
    """One item for one key/value head. Grid: items, kv_heads."""
    item = items + tl.program_id(0).to(tl.int64) * 7
    kv_head = tl.program_id(1).to(tl.int64)
    length = tl.load(item + 3).to(tl.int32)
    if length == 0:
        return  # padding
    first, count, slot = tl.load(item), tl.load(item + 1), tl.load(item + 2)
    base, turn, partial = tl.load(item + 4), tl.load(item + 5), tl.load(item + 6)

    # The tile's rows: query after query, each with its heads.
    row = tl.arange(0, ROWS)
    number = row // GROUP
    asking = number < count
    entry = queries + (first + number) * 3
    place = tl.load(entry, mask=asking, other=0)
    turn = turn + tl.load(entry + 1, mask=asking, other=0)
    position = tl.load(entry + 2, mask=asking, other=0)
    shift = tl.load(turns + turn * 3, mask=asking, other=0)
    limit = tl.load(turns + turn * 3 + 1, mask=asking, other=0)
    limit += position * tl.load(turns + turn * 3 + 2, mask=asking, other=0)
    end = (limit - base).to(tl.int32)  # the row sees the run's slots up to here
    after = (position + shift - WINDOW - base).to(tl.int32)  # and, with a window, beyond here
    head = kv_head * GROUP + row % GROUP

    # Their queries, turned to where they stand as seen from the block.
    at = tl.arange(0, WIDTH)
    whole = asking[:, None] & (at < DIM)[None, :]
    start = query + head[:, None] * query_head + place[:, None] * query_token
    turned = tl.load(start + at[None, :], mask=whole, other=0.0).to(tl.float32)
    if TURNING:
        other = tl.load(partner + at, mask=at < DIM, other=0)
        mixed = tl.load(start + other[None, :], mask=whole, other=0.0).to(tl.float32)
        angle = angles + turn[:, None] * (2 * DIM) + at[None, :]
        cos = tl.load(angle, mask=whole, other=0.0)
        sin = tl.load(angle + DIM, mask=whole, other=0.0)
        turned = turned * cos + mixed * sin
    if EXACT:
        asked = turned.to(query.dtype.element_ty).to(tl.float32)
    else:
        asked = turned.to(query.dtype.element_ty)

    value_at = tl.arange(0, VALUE_WIDTH)
    peak = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mean = tl.zeros([ROWS, VALUE_WIDTH], tl.float32)
    keys += (kv_head * room + slot) * DIM
    values += (kv_head * room + slot) * VALUE_DIM
    for low in range(0, length, STEP):
        n = low + tl.arange(0, STEP)
        inside = n < length
        key = tl.load(
            keys + n[:, None] * DIM + at[None, :],
            mask=inside[:, None] & (at < DIM)[None, :],
            other=0.0,
        ).to(asked.dtype)
        score = tl.dot(asked, tl.trans(key), input_precision="ieee") * scaling
        if CAPPED:
            score = softcap * (2 * tl.sigmoid(2 * score / softcap) - 1)  # tanh
        score *= LOG2_E
        seen = inside[None, :] & (n[None, :] < end[:, None])
        if WINDOW > 0:
            seen = seen & (n[None, :] > after[:, None])
        score = tl.where(seen, score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 1))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        weight = tl.exp2(score - level[:, None])
        fade = tl.exp2(peak - level)
        total = total * fade + tl.sum(weight, 1)
        value = tl.load(
            values + n[:, None] * VALUE_DIM + value_at[None, :],
            mask=inside[:, None] & (value_at < VALUE_DIM)[None, :],
            other=0.0,
        ).to(asked.dtype)
        mean = mean * fade[:, None]
        mean += tl.dot(weight.to(asked.dtype), value, input_precision="ieee")
        peak = higher

    result = (partial + number) * heads + head
    tl.store(
        sums + result[:, None] * VALUE_DIM + value_at[None, :],
        mean,
        mask=asking[:, None] & (value_at < VALUE_DIM)[None, :],
    )
    tl.store(peaks + result * 2, peak, mask=asking)
    tl.store(peaks + result * 2 + 1, total, mask=asking)


@triton.jit
def merge(
    sums,
    peaks,
    out,
    merges,
    queries,
    sinks,
    heads,
    VALUE_DIM: tl.constexpr,
    SINKS: tl.constexpr,
    MANY: tl.constexpr,
    VALUE_WIDTH: tl.constexpr,
):
    """What all items come to for one query and head. Grid: queries, heads."""
    number, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    first, step = tl.load(merges + number * 3), tl.load(merges + number * 3 + 1)
    count = tl.load(merges + number * 3 + 2)
    place = tl.load(queries + number * 3)
    at = tl.arange(0, VALUE_WIDTH)
    peak = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    if SINKS:  # it takes a share and carries no value
        peak = tl.full([1], 0.0, tl.float32) + tl.load(sinks + head).to(tl.float32) * LOG2_E
        total = tl.full([1], 1.0, tl.float32)
    mean = tl.zeros([VALUE_WIDTH], tl.float32)
    for low in range(0, count, MANY):
        n = low + tl.arange(0, MANY)
        result = (first + n * step) * heads + head
        theirs = tl.load(peaks + result * 2, mask=n < count, other=float("-inf"))
        higher = tl.maximum(peak, tl.max(theirs, 0))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        share = tl.exp2(theirs - level)
        fade = tl.exp2(peak - level)
        total = total * fade + tl.sum(
            share * tl.load(peaks + result * 2 + 1, mask=n < count, other=0.0), 0
        )
        part = tl.load(
            sums + result[:, None] * VALUE_DIM + at[None, :],
            mask=(n < count)[:, None] & (at < VALUE_DIM)[None, :],
            other=0.0,
        )
        mean = mean * fade + tl.sum(share[:, None] * part, 0)
        peak = higher
    mean = mean / tl.where(total == 0.0, 1.0, total)  # padding sees nothing
    where = (place * heads + head) * VALUE_DIM + at
    tl.store(out + where, mean.to(out.dtype.element_ty), mask=at < VALUE_DIM)


@triton.jit
def commit(
    layers,
    partners,
    angles,
    source,
    target,
    tokens,
    KIND: tl.constexpr,
    WIDTH: tl.constexpr,
    MANY: tl.constexpr,
):
    """Turns keys on and moves them with their values. Grid: runs of tokens, kv_heads, layers.

    `layers` [layers, 7] holds addresses of keys and values, kv_heads, both sizes, the room of a
    head in slots and the rotation: an index into `partners` and `angles`, or -1 for none.
    """
    layer = layers + tl.program_id(2).to(tl.int64) * 7
    head = tl.program_id(1).to(tl.int64)
    if head >= tl.load(layer + 2):
        return
    keys = tl.load(layer).to(tl.pointer_type(KIND))
    values = tl.load(layer + 1).to(tl.pointer_type(KIND))
    dim, value_dim = tl.load(layer + 3), tl.load(layer + 4)
    room, rotation = tl.load(layer + 5), tl.load(layer + 6)
    n = tl.program_id(0) * MANY + tl.arange(0, MANY)
    old = head * room + tl.load(source + n, mask=n < tokens, other=0)
    new = head * room + tl.load(target + n, mask=n < tokens, other=0)
    at = tl.arange(0, WIDTH)
    whole = (n < tokens)[:, None] & (at < dim)[None, :]
    kept = tl.load(keys + old[:, None] * dim + at[None, :], mask=whole)
    if rotation >= 0:
        other = tl.load(partners + rotation * WIDTH + at)
        cos = tl.load(angles + rotation * 2 * WIDTH + at)
        sin = tl.load(angles + rotation * 2 * WIDTH + WIDTH + at)
        mixed = tl.load(keys + old[:, None] * dim + other[None, :], mask=whole, other=0.0)
        kept = (kept.to(tl.float32) * cos + mixed.to(tl.float32) * sin).to(kept.dtype)
    tl.store(keys + new[:, None] * dim + at[None, :], kept, mask=whole)
    whole = (n < tokens)[:, None] & (at < value_dim)[None, :]
    kept = tl.load(values + old[:, None] * value_dim + at[None, :], mask=whole)
    tl.store(values + new[:, None] * value_dim + at[None, :], kept, mask=whole)
