"""Loads a transformers model: where from, where to, and in which precision."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hogwild_agents.errors import ModelLoadError


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device meant; a CUDA card if there is one and none is named, else the CPU.

    Raises:
        ModelLoadError: There is no such device.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        probe = torch.ones(1, device=chosen)
        probe.item()  # is it there?
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelLoadError(
            f"Cannot use device {device!r} ({error}): use cpu, or cuda with a card in the machine."
        ) from error
    return probe.device  # with its number


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Makes a card the current one of this thread: Triton launches its kernels there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The precision meant, or None for `auto`, the checkpoint's own.

    Raises:
        ModelLoadError: It is not a floating-point type of torch.
    """
    if dtype == "auto":
        return None
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ModelLoadError(f"Unknown dtype {dtype!r}: use float32, bfloat16, float16 or auto.")
    return kind


def load_model(
    source: str | os.PathLike[str] | PreTrainedModel,
    device: str | torch.device | None,
    dtype: str | torch.dtype,
) -> PreTrainedModel:
    """Loads from a folder or the hub, or takes a model that is loaded already.

    A loaded model stays where it is if `device` is None, and as it is if `dtype` is `auto`.

    Raises:
        ModelLoadError: Nothing loadable there, or an unknown or missing device or dtype.
    """
    kind = parse_dtype(dtype)
    target = (
        None if device is None and isinstance(source, PreTrainedModel) else choose_device(device)
    )
    if isinstance(source, PreTrainedModel):
        model = source
        if kind is not None and kind != model.dtype:
            for parameter in model.parameters():  # not buffers: rotary frequencies stay float32
                if parameter.is_floating_point():
                    parameter.data = parameter.data.to(kind)
    else:
        try:
            model = AutoModelForCausalLM.from_pretrained(
                os.fspath(source), dtype=kind or "auto", **_straight_to(target)
            )
        except Exception as error:  # each broken file has an error type of its own
            nothing = "" if os.path.exists(source) else " (there is no such folder here)"
            raise ModelLoadError(
                f"Cannot load a causal language model from {os.fspath(source)!r}{nothing}: {error}"
            ) from error
    try:
        if target is not None and next(model.parameters()).device != target:
            torch.nn.Module.to(model, target)
    except RuntimeError as error:
        raise ModelLoadError(f"Cannot put the model on {target}: {error}") from error
    return model


def _straight_to(device: torch.device | None) -> dict[str, Any]:
    """Options with which weights are read straight into a card's memory, not by way of the host's.

    transformers needs accelerate for that; without it they are moved afterwards.
    """
    if device is None or device.type == "cpu" or find_spec("accelerate") is None:
        return {}
    return {"device_map": device}
