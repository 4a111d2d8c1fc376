"""Chooses the backend that computes attention: `torch` (reference, CPUs) or `triton` (GPUs)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch

from hogwild_agents.engine.attention.interface import Attention, Pass
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.errors import ModelLoadError

logger = logging.getLogger(__name__)

BackendName = Literal["torch", "triton"]


class Backend(NamedTuple):
    """One implementation of attention over blocks.

    Attributes:
        name: Its name in the public interface.
        pool: The class of the memory that it reads.
        prepare: Prepares it for a pass.
    """

    name: BackendName
    pool: type[CachePool]
    prepare: Callable[[Pass], Attention]


def choose_backend(name: BackendName | None, device: torch.device) -> Backend:
    """The backend of this name, or the one that suits the device if `name` is None.

    Raises:
        ModelLoadError: The name is unknown, or this backend does not run here.
    """
    if name not in (None, "torch", "triton"):
        raise ModelLoadError(f"Unknown backend {name!r}: use torch, triton, or None to choose.")
    has_triton = find_spec("triton") is not None
    if name is None:
        name = "triton" if device.type == "cuda" and has_triton else "torch"
        if name == "torch" and device.type != "cpu":
            logger.warning(
                "Attention on %s runs in plain torch, several times slower than possible: %s.",
                device,
                "Triton is not installed"
                if device.type == "cuda"
                else "Triton does not support this device",
            )
    if name == "torch":
        from hogwild_agents.engine.attention.torch import TorchAttention

        return Backend(name, CachePool, TorchAttention)
    if not has_triton:
        raise ModelLoadError("The triton backend needs the package triton: pip install triton.")
    from hogwild_agents.engine.attention.triton import INTERPRETED, TritonAttention, TritonPool

    if device.type != "cuda" and not INTERPRETED:
        raise ModelLoadError(
            f"The triton backend does not run on {device}: use a CUDA card or the torch backend. "
            "(For tests, TRITON_INTERPRET=1 runs its kernels on a CPU, very slowly.)"
        )
    return Backend(name, TritonPool, TritonAttention.prepare)
