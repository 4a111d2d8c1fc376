"""The limits of a model: the most tokens in a view, and the memory that its cache may take."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from hogwild_agents.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def position_limit(config: PreTrainedConfig) -> int:
    """The most tokens that a view of this model may hold; `sys.maxsize` if it states no limit.

    Configurations disagree on whether `max_position_embeddings` means the length before or after
    scaling, so the larger reading counts (as in vLLM for YaRN).
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
    """Fixes which of longrope's two sets of frequencies (arXiv 2402.13753) a model uses.

    transformers picks the set by the longest position of each call. Keys in the cache cannot
    follow such a change, so one set is fixed on load: by default the short one, which covers the
    original length; the long one if `max_length` is larger.

    Returns:
        The most tokens that a view may hold, or None if the model has no longrope.
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


def default_cache_bytes(device: torch.device, utilization: float) -> int:
    """The memory for a cache: half of the machine's, or what `utilization` leaves on a CUDA card.

    Args:
        device: The device, on which the model has been loaded.
        utilization: The share of the card's whole memory that all programs may take together.

    Raises:
        ModelLoadError: `utilization` is not a share, or it leaves nothing for a cache.
    """
    if not 0 < utilization <= 1:
        raise ModelLoadError(
            f"gpu_memory_utilization={utilization} is not a share: use a number above 0 and at "
            "most 1."
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        left = int(free - (1 - utilization) * total)
        if left <= 0:
            raise ModelLoadError(
                f"The weights leave {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, and "
                f"gpu_memory_utilization={utilization} leaves nothing of that for a cache: raise "
                "it, load a quantised checkpoint, or stop other programs on this card."
            )
        return left
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 4 * 2**30


def _use_long_frequencies(module: Any, original: int) -> None:
    """Calls the rotary module with a position beyond the original length, then fixes its choice."""
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
