"""Which backend computes attention: `torch` (reference, CPUs) or `triton` (GPUs)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch

from hogwild_agents.engine.attention.interface import Attend, Pass
from hogwild_agents.engine.cache.pool import CachePool
from hogwild_agents.errors import ModelLoadError

logger = logging.getLogger(__name__)

BackendName = Literal["torch", "triton"]


class Backend(NamedTuple):
    """One of them.

    Attributes:
        name: As users say it.
        pool: The memory that it reads.
        attend: Prepares it for a pass.
    """

    name: BackendName
    pool: type[CachePool]
    attend: Callable[[Pass], Attend]


def choose_backend(name: BackendName | None, device: torch.device) -> Backend:
    """The backend meant, or the one that suits a device.

    Raises:
        ModelLoadError: There is none of this name, or it does not run here.
    """
    if name not in (None, "torch", "triton"):
        raise ModelLoadError(f"Unknown backend {name!r}: use torch, triton, or None to choose.")
    there = find_spec("triton") is not None
    if name is None:
        name = "triton" if device.type == "cuda" and there else "torch"
        if name == "torch" and device.type != "cpu":
            why = (
                "Triton is not installed" if device.type == "cuda" else "Triton has no such target"
            )
            logger.warning(
                "Attention on %s runs in plain torch, several times slower than it could: %s.",
                device,
                why,
            )
    if name == "torch":
        from hogwild_agents.engine.attention.torch import TorchAttend

        return Backend(name, CachePool, TorchAttend)
    if not there:
        raise ModelLoadError("The triton backend needs the package triton: pip install triton.")
    from hogwild_agents.engine.attention.triton import INTERPRETED, TritonAttend, TritonPool

    if device.type != "cuda" and not INTERPRETED:
        raise ModelLoadError(
            f"The triton backend does not run on {device}: use a CUDA card or the torch backend. "
            "(For tests, TRITON_INTERPRET=1 runs its kernels on a CPU, very slowly.)"
        )
    return Backend(name, TritonPool, TritonAttend.of)
