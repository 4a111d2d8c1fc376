"""Loads a transformers model onto a device, in a dtype."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from hogwild_agents.errors import ModelLoadError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device of this name; without a name a CUDA card if there is one, else the CPU.

    Raises:
        ModelLoadError: There is no such device.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        probe = torch.ones(1, device=chosen)
        probe.item()  # waits until the device has answered
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelLoadError(
            f"Cannot use device {device!r} ({error}): use cpu, or cuda with a card in the machine."
        ) from error
    return probe.device  # with its index


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Makes a card the current one of this thread: Triton launches its kernels there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The torch dtype of this name, or None for `auto`, the checkpoint's own.

    Raises:
        ModelLoadError: It is not a floating-point dtype of torch.
    """
    if dtype == "auto":
        return None
    parsed = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(parsed, torch.dtype) or not parsed.is_floating_point:
        raise ModelLoadError(f"Unknown dtype {dtype!r}: use float32, bfloat16, float16 or auto.")
    return parsed


def load_model(
    source: str | os.PathLike[str] | PreTrainedModel,
    device: str | torch.device | None,
    dtype: str | torch.dtype,
) -> PreTrainedModel:
    """Loads a model from a folder or the hub, or converts one that is loaded already.

    A loaded model stays on its device if `device` is None, and keeps its dtype if `dtype` is
    `auto`.

    Raises:
        ModelLoadError: The model cannot be loaded, or there is no such device or dtype.
    """
    from transformers import AutoModelForCausalLM, PreTrainedModel  # slow, and only needed here

    target_dtype = parse_dtype(dtype)
    target = (
        None if device is None and isinstance(source, PreTrainedModel) else choose_device(device)
    )
    if isinstance(source, PreTrainedModel):
        model = source
        if target_dtype is not None and target_dtype != model.dtype:
            for parameter in model.parameters():  # not buffers: rotary frequencies stay float32
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(target_dtype)
    else:
        try:
            model = AutoModelForCausalLM.from_pretrained(
                os.fspath(source),
                dtype=target_dtype or "auto",
                trust_remote_code=False,  # unset, transformers asks on the terminal
                **_placement(target),
            )
        except Exception as error:  # every kind of broken file raises another type
            hint = "" if os.path.exists(source) else " (there is no such folder here)"
            raise ModelLoadError(
                f"Cannot load a causal language model from {os.fspath(source)!r}{hint}: {error}"
            ) from error
    try:
        if target is not None and next(model.parameters()).device != target:
            torch.nn.Module.to(model, target)
    except RuntimeError as error:
        raise ModelLoadError(f"Cannot put the model on {target}: {error}") from error
    return model


def _placement(device: torch.device | None) -> dict[str, Any]:
    """Options that make transformers read weights directly into a card's memory.

    transformers needs accelerate for that; without it the weights are moved afterwards.
    """
    if device is None or device.type == "cpu" or find_spec("accelerate") is None:
        return {}
    return {"device_map": device}
