"""The Triton kernels: write_kv, attend, merge_splits, commit.

The cache of a layer is [kv_heads, slots, dim], contiguous. The integer tables (`splits`, `queries`,
`placements`, `merges`) are described in `tiles.py`. The softmax is computed online as in
FlashAttention-2 (Dao, arXiv 2307.08691): `m` is a row's maximum in units of log 2, `l` its sum of
exponentials and `acc` its weighted values, all in float32. As in Flash-Decoding (Dao et al., 2023),
keys are cut into splits, each read by a program of its own, and the partial results are merged.

New here: a tile holds the queries of all workers that share a block. Each query is rotated to the
place at which its own view holds the block, so keys and values are loaded once for all workers.

BLOCK_M is the rows of a tile, BLOCK_N the slots that are read at a time, BLOCK_D and BLOCK_DV are
KEY_DIM and VALUE_DIM rounded up to a power of two, GROUP is the query heads per key/value head.

With `TRITON_INTERPRET=1` the same code runs on a CPU. The interpreter (of Triton 3.7.1) multiplies
bfloat16 tiles wrongly, so `EXACT` computes all products in float32.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def write_kv(
    k,
    v,
    k_cache,
    v_cache,
    slot_mapping,
    stride_kh,
    stride_kt,
    stride_vh,
    stride_vt,
    num_slots,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Writes the key and value of one token and head to the token's slot. Grid: tokens, kv_heads.

    BLOCK_D covers both the key and the value.
    """
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    slot = tl.load(slot_mapping + token)
    if slot < 0:
        return  # padding
    offs_d = tl.arange(0, BLOCK_D)
    cache_row = head * num_slots + slot
    new_k = tl.load(k + head * stride_kh + token * stride_kt + offs_d, mask=offs_d < KEY_DIM)
    v_row = v + head * stride_vh + token * stride_vt
    new_v = tl.load(v_row + offs_d, mask=offs_d < VALUE_DIM, other=0.0)
    # A query that does not see a token gives its value the weight 0, and 0 x NaN would be NaN.
    # Scores are masked, so a NaN or infinity of the value moves to the key: it then reaches the
    # queries that see the token, and no others.
    finite = tl.min((tl.abs(new_v.to(tl.float32)) < float("inf")).to(tl.int32), 0) != 0
    new_k = tl.where(finite, new_k.to(tl.float32), float("nan"))
    new_v = tl.where(finite, new_v.to(tl.float32), 0.0)
    k_row = k_cache + cache_row * KEY_DIM
    tl.store(k_row + offs_d, new_k.to(k_cache.dtype.element_ty), mask=offs_d < KEY_DIM)
    v_row = v_cache + cache_row * VALUE_DIM
    tl.store(v_row + offs_d, new_v.to(v_cache.dtype.element_ty), mask=offs_d < VALUE_DIM)


@triton.jit
def attend(
    q,
    k_cache,
    v_cache,
    partial_acc,
    partial_ml,
    splits,
    queries,
    placements,
    cos_sin,
    partner,
    stride_qh,
    stride_qt,
    num_slots,
    num_heads,
    scaling,
    softcap,
    GROUP: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    ROTATE: tl.constexpr,
    EXACT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """One split for one key/value head. Grid: splits, kv_heads.

    Writes `partial_acc` [partials, heads, VALUE_DIM] and `partial_ml` [partials, heads, 2].
    """
    split = splits + tl.program_id(0).to(tl.int64) * 7
    kv_head = tl.program_id(1).to(tl.int64)
    length = tl.load(split + 3).to(tl.int32)
    if length == 0:
        return  # padding
    first_query, num_queries, slot = tl.load(split), tl.load(split + 1), tl.load(split + 2)
    base, placement, partial = tl.load(split + 4), tl.load(split + 5), tl.load(split + 6)

    # The rows of the tile: query after query, each with all heads of its group.
    offs_m = tl.arange(0, BLOCK_M)
    query_index = offs_m // GROUP
    mask_m = query_index < num_queries
    query = queries + (first_query + query_index) * 3
    token = tl.load(query, mask=mask_m, other=0)
    placement = placement + tl.load(query + 1, mask=mask_m, other=0)
    position = tl.load(query + 2, mask=mask_m, other=0)
    shift = tl.load(placements + placement * 3, mask=mask_m, other=0)
    limit = tl.load(placements + placement * 3 + 1, mask=mask_m, other=0)
    limit += position * tl.load(placements + placement * 3 + 2, mask=mask_m, other=0)
    end = (limit - base).to(tl.int32)  # the row sees slots of the split before this one
    hidden = (position + shift - WINDOW - base).to(tl.int32)  # and after this one, under a window
    head = kv_head * GROUP + offs_m % GROUP

    # Their queries, rotated to their position relative to the block.
    offs_d = tl.arange(0, BLOCK_D)
    mask_q = mask_m[:, None] & (offs_d < KEY_DIM)[None, :]
    q_row = q + head[:, None] * stride_qh + token[:, None] * stride_qt
    q_tile = tl.load(q_row + offs_d[None, :], mask=mask_q, other=0.0).to(tl.float32)
    if ROTATE:
        offs_partner = tl.load(partner + offs_d, mask=offs_d < KEY_DIM, other=0)
        q_partner = tl.load(q_row + offs_partner[None, :], mask=mask_q, other=0.0).to(tl.float32)
        angle = cos_sin + placement[:, None] * (2 * KEY_DIM) + offs_d[None, :]
        cos = tl.load(angle, mask=mask_q, other=0.0)
        sin = tl.load(angle + KEY_DIM, mask=mask_q, other=0.0)
        q_tile = q_tile * cos + q_partner * sin
    if EXACT:
        q_tile = q_tile.to(q.dtype.element_ty).to(tl.float32)
    else:
        q_tile = q_tile.to(q.dtype.element_ty)

    offs_dv = tl.arange(0, BLOCK_DV)
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_DV], tl.float32)
    k_cache += (kv_head * num_slots + slot) * KEY_DIM
    v_cache += (kv_head * num_slots + slot) * VALUE_DIM
    for start_n in range(0, length, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        mask_n = offs_n < length
        k_tile = tl.load(
            k_cache + offs_n[:, None] * KEY_DIM + offs_d[None, :],
            mask=mask_n[:, None] & (offs_d < KEY_DIM)[None, :],
            other=0.0,
        ).to(q_tile.dtype)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee") * scaling
        if SOFTCAP:
            scores = softcap * (2 * tl.sigmoid(2 * scores / softcap) - 1)  # tanh
        scores *= LOG2_E
        visible = mask_n[None, :] & (offs_n[None, :] < end[:, None])
        if WINDOW > 0:
            visible = visible & (offs_n[None, :] > hidden[:, None])
        scores = tl.where(visible, scores, float("-inf"))
        m_new = tl.maximum(m, tl.max(scores, 1))
        m_finite = tl.where(m_new == float("-inf"), 0.0, m_new)
        p = tl.exp2(scores - m_finite[:, None])
        alpha = tl.exp2(m - m_finite)
        l = l * alpha + tl.sum(p, 1)
        v_tile = tl.load(
            v_cache + offs_n[:, None] * VALUE_DIM + offs_dv[None, :],
            mask=mask_n[:, None] & (offs_dv < VALUE_DIM)[None, :],
            other=0.0,
        ).to(q_tile.dtype)
        acc = acc * alpha[:, None]
        acc += tl.dot(p.to(q_tile.dtype), v_tile, input_precision="ieee")
        m = m_new

    result = (partial + query_index) * num_heads + head
    tl.store(
        partial_acc + result[:, None] * VALUE_DIM + offs_dv[None, :],
        acc,
        mask=mask_m[:, None] & (offs_dv < VALUE_DIM)[None, :],
    )
    tl.store(partial_ml + result * 2, m, mask=mask_m)
    tl.store(partial_ml + result * 2 + 1, l, mask=mask_m)


@triton.jit
def merge_splits(
    partial_acc,
    partial_ml,
    out,
    merges,
    queries,
    sinks,
    num_heads,
    VALUE_DIM: tl.constexpr,
    SINKS: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_DV: tl.constexpr,
):
    """Merges the partial results of one query and head, BLOCK_S at a time. Grid: queries, heads."""
    query, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    first, step = tl.load(merges + query * 3), tl.load(merges + query * 3 + 1)
    count = tl.load(merges + query * 3 + 2)
    token = tl.load(queries + query * 3)
    offs_dv = tl.arange(0, BLOCK_DV)
    m = tl.full([1], float("-inf"), tl.float32)
    l = tl.zeros([1], tl.float32)
    if SINKS:  # a sink takes a share and carries no value
        m = tl.full([1], 0.0, tl.float32) + tl.load(sinks + head).to(tl.float32) * LOG2_E
        l = tl.full([1], 1.0, tl.float32)
    acc = tl.zeros([BLOCK_DV], tl.float32)
    for start_s in range(0, count, BLOCK_S):
        offs_s = start_s + tl.arange(0, BLOCK_S)
        result = (first + offs_s * step) * num_heads + head
        split_m = tl.load(partial_ml + result * 2, mask=offs_s < count, other=float("-inf"))
        m_new = tl.maximum(m, tl.max(split_m, 0))
        m_finite = tl.where(m_new == float("-inf"), 0.0, m_new)
        split_alpha = tl.exp2(split_m - m_finite)
        alpha = tl.exp2(m - m_finite)
        split_l = tl.load(partial_ml + result * 2 + 1, mask=offs_s < count, other=0.0)
        l = l * alpha + tl.sum(split_alpha * split_l, 0)
        split_acc = tl.load(
            partial_acc + result[:, None] * VALUE_DIM + offs_dv[None, :],
            mask=(offs_s < count)[:, None] & (offs_dv < VALUE_DIM)[None, :],
            other=0.0,
        )
        acc = acc * alpha + tl.sum(split_alpha[:, None] * split_acc, 0)
        m = m_new
    acc = acc / tl.where(l == 0.0, 1.0, l)  # padding sees nothing
    out_row = out + (token * num_heads + head) * VALUE_DIM
    tl.store(out_row + offs_dv, acc.to(out.dtype.element_ty), mask=offs_dv < VALUE_DIM)


@triton.jit
def commit(
    layers,
    partners,
    cos_sin,
    source_slots,
    target_slots,
    num_tokens,
    CACHE_DTYPE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Copies tokens to other slots, with keys rotated by one shift.

    Grid: BLOCK_T tokens each, kv_heads, layers.

    `layers` [layers, 7] holds the addresses of keys and values, kv_heads, key_dim, value_dim, slots
    per head and the rotation: an index into `partners` and `cos_sin`, or -1 for none.
    """
    layer = layers + tl.program_id(2).to(tl.int64) * 7
    head = tl.program_id(1).to(tl.int64)
    if head >= tl.load(layer + 2):
        return
    k_cache = tl.load(layer).to(tl.pointer_type(CACHE_DTYPE))
    v_cache = tl.load(layer + 1).to(tl.pointer_type(CACHE_DTYPE))
    key_dim, value_dim = tl.load(layer + 3), tl.load(layer + 4)
    num_slots, rotation = tl.load(layer + 5), tl.load(layer + 6)
    offs_t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    mask_t = offs_t < num_tokens
    source = head * num_slots + tl.load(source_slots + offs_t, mask=mask_t, other=0)
    target = head * num_slots + tl.load(target_slots + offs_t, mask=mask_t, other=0)
    offs_d = tl.arange(0, BLOCK_D)
    mask_k = mask_t[:, None] & (offs_d < key_dim)[None, :]
    k = tl.load(k_cache + source[:, None] * key_dim + offs_d[None, :], mask=mask_k)
    if rotation >= 0:
        offs_partner = tl.load(partners + rotation * BLOCK_D + offs_d)
        cos = tl.load(cos_sin + rotation * 2 * BLOCK_D + offs_d)
        sin = tl.load(cos_sin + rotation * 2 * BLOCK_D + BLOCK_D + offs_d)
        k_partner = tl.load(
            k_cache + source[:, None] * key_dim + offs_partner[None, :], mask=mask_k, other=0.0
        )
        k = (k.to(tl.float32) * cos + k_partner.to(tl.float32) * sin).to(k.dtype)
    tl.store(k_cache + target[:, None] * key_dim + offs_d[None, :], k, mask=mask_k)
    mask_v = mask_t[:, None] & (offs_d < value_dim)[None, :]
    v = tl.load(v_cache + source[:, None] * value_dim + offs_d[None, :], mask=mask_v)
    tl.store(v_cache + target[:, None] * value_dim + offs_d[None, :], v, mask=mask_v)
