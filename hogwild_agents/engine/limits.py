"""How far a model's positions reach, and how much memory a cache may take."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel


def position_limit(config: PreTrainedConfig) -> int:
    """Tokens that a view of this model may hold; `sys.maxsize` where the model states none.

    Configurations disagree on whether `max_position_embeddings` is meant before or after scaling,
    so the larger reading counts (as vLLM does for YaRN).
    """
    text = config.get_text_config(decoder=True)
    stated = getattr(text, "max_position_embeddings", None)
    if not stated:
        return sys.maxsize
    limits = [int(stated)]
    for rope in _rope_parameters(text):
        if rope.get("rope_type") in ("yarn", "linear"):
            original = rope.get("original_max_position_embeddings") or stated
            limits.append(int(original * (rope.get("factor") or 1.0)))
    return max(limits)


def freeze_longrope(model: PreTrainedModel, max_length: int | None) -> int | None:
    """Settles which of longrope's two sets of frequencies (arXiv 2402.13753) a model uses.

    transformers picks the set by the longest position of each call. Keys in the cache cannot
    follow such a change, so one set is fixed on load: the short one by default, whose reach is the
    original length; the long one if `max_length` asks for more.

    Returns:
        The tokens that a view may hold, or None if the model has no longrope.
    """
    limit = None
    for module in model.modules():
        if getattr(module, "rope_type", None) != "longrope":
            continue
        config: Any = module.config
        original = int(config.rope_parameters["original_max_position_embeddings"])
        if max_length is None or max_length <= original:
            limit = original
        else:
            limit = position_limit(config)
            _use_long_frequencies(module, original)
    return limit


def default_cache_bytes(device: torch.device) -> int:
    """Half of the machine's memory, or 90 % of what the card has free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.9 * free)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 4 * 2**30


def _use_long_frequencies(module: Any, original: int) -> None:
    """Shows the rotary module one position beyond the original length, then stops its switching."""
    device = module.inv_freq.device
    with torch.no_grad():
        module(torch.zeros(1, device=device), torch.tensor([[original]], device=device))
    module.rope_type = "default"


def _rope_parameters(config: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    rope = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in rope:
        yield rope
    else:
        yield from (part for part in rope.values() if isinstance(part, dict))
