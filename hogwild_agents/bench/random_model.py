"""Models of well-known shapes with random weights: enough to time a pass, without a download."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from hogwild_agents.bench.shapes import SHAPES
from hogwild_agents.errors import ModelLoadError


def build_shape(shape: str, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """A model of a named shape with random weights, built on the device without a download.

    Raises:
        ModelLoadError: There is no such shape.
    """
    if shape not in SHAPES:
        raise ModelLoadError(f"Unknown shape {shape!r}: choose one of {', '.join(SHAPES)}.")
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = Qwen3Config(max_position_embeddings=2**20, rope_parameters=rope, **SHAPES[shape])
    config._name_or_path = f"random {shape}"
    with torch.device("meta"):
        model: Any = Qwen3ForCausalLM(config)
    model.to(dtype)
    model.to_empty(device=device)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(device)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.fill_(1)
        else:
            parameter.data.uniform_(-0.03, 0.03, generator=generator)
    loaded: PreTrainedModel = model.train(False)
    return loaded
