"""Measures a model on load: what its attention layers are, and how they rotate with position.

Two short runs of the unmodified model measure everything:

- `probe_positions` lets every token attend to itself only, so that the input of a layer does not
  depend on position, and places the same tokens at several positions. Whatever changes in queries
  and keys is then the layer's rotation.
- `probe_plain` runs the model's own plain forward, through its own eager attention and masks, and
  traces it. This gives the window of each layer, and what `self_check.py` compares with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import (
    Rotation,
    candidate_rotations,
    frequency_vectors,
    misfit,
)
from hogwild_agents.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

POSITIONS = (0, 3, 500, 5_000, 50_000)
"""Where the probe puts its tokens; the far ones show scalings that begin late."""

NEAR_MISFIT, FAR_MISFIT = 1e-3, 3e-2
"""Largest misfit of a rotation up to 500 positions away, and beyond, in float32: angles that a
model computes in float32 are off by 3e-3 radians at 50,000. Lower precisions always get the
second."""

SUPPORTED_OPTIONS = frozenset(
    [
        *("scaling", "softcap", "s_aux", "sliding_window", "dropout", "is_causal", "layer_idx"),
        *("position_ids", "position_embeddings", "cache_position", "use_cache", "return_dict"),
        *("output_attentions", "output_hidden_states", "output_router_logits"),
        *("logits_to_keep", "num_items_in_batch"),
    ]
)
"""Keyword arguments of an attention call that the engine honours, or that change no score."""

PLAIN_CACHES = frozenset(["DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"])
"""transformers' caches of keys and values; a layer that reuses another layer's has a dummy."""


@dataclass(slots=True)
class AttentionCall:
    """One call of the attention function, as the model made it."""

    module: nn.Module
    query: Tensor  # [1, heads, tokens, key_dim]
    key: Tensor  # [1, kv_heads, tokens, key_dim]
    value: Tensor  # [1, kv_heads, tokens, value_dim]
    options: dict[str, Any]
    mask: MaskProperties | None = None
    out: Tensor | None = None  # [1, tokens, heads, value_dim], of the model's own eager attention


@dataclass(frozen=True, slots=True)
class MaskProperties:
    """What an attention mask hides besides the future."""

    window: int | None = None
    fault: str | None = None  # why the engine does not support it


@dataclass(slots=True)
class Trace:
    """The attention calls and masks of a traced run.

    Masks are found by the address of their storage, which slicing does not change. The tensor is
    held so that its address is not reused.
    """

    calls: list[AttentionCall] = field(default_factory=list)
    masks: dict[int, tuple[Tensor, MaskProperties]] = field(default_factory=dict)


_TRACE: ContextVar[Trace] = ContextVar("hogwild_trace")


def check_structure(model: PreTrainedModel, name: str) -> None:
    """Refuses a model that is unsupported by its configuration alone.

    Raises:
        UnsupportedModelError: It is not a decoder, has token mixers that are not softmax attention,
            or its rotary frequencies depend on the length of the text.
    """
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError.because(name, "it is an encoder-decoder, not a decoder")
    for layer, reason in _unsupported_caches(config):
        raise UnsupportedModelError.because(name, reason, layer)
    for module in model.modules():
        rope_types = getattr(module, "rope_type", None)
        for rope_type in rope_types.values() if isinstance(rope_types, dict) else [rope_types]:
            if isinstance(rope_type, str) and "dynamic" in rope_type:
                raise UnsupportedModelError.because(
                    name,
                    f"its rotary frequencies depend on the length of the text ({rope_type} NTK "
                    "scaling), so stored keys would become wrong; use yarn, linear or llama3",
                )


def _unsupported_caches(config: PreTrainedConfig) -> Iterator[tuple[int | None, str]]:
    """Layers whose cache is not plain keys and values, with the reason to refuse them."""
    from transformers import DynamicCache

    try:
        layers = DynamicCache(config=config).layers
    except Exception as error:  # noqa: BLE001  any failure here means the same: not a plain cache
        yield None, f"transformers has no plain key/value cache for it ({error})"
        return
    for index, layer in enumerate(layers):
        name = type(layer).__name__
        if "LinearAttention" in name:
            reason = (
                "it mixes tokens by linear attention, a convolution or a state-space model "
                f"({name}), whose state cannot be shared or moved like keys and values"
            )
            yield index, reason
        elif name not in PLAIN_CACHES:
            yield index, f"its cache is a {name} (a sparse indexer or similar), not keys and values"


def run_model(model: PreTrainedModel, tokens: Tensor, positions: Tensor) -> Tensor:
    """One forward of `tokens` [n] at `positions` [n] without a cache: logits float32 [n, vocab]."""
    with torch.no_grad():
        out = model(input_ids=tokens[None], position_ids=positions[None], use_cache=False)
    logits: Tensor = out.logits[0]
    return logits.float()


@contextmanager
def traced(model: PreTrainedModel, implementation: str) -> Iterator[Trace]:
    """Runs of `model` in this context use the attention `implementation`, which traces them."""
    _register_probes()
    trace = Trace()
    token = _TRACE.set(trace)
    model.set_attn_implementation(implementation)
    try:
        yield trace
    finally:
        _TRACE.reset(token)


def probe_positions(
    model: PreTrainedModel, name: str, tokens: Tensor
) -> tuple[list[AttentionCall], Tensor]:
    """Runs the same tokens at several positions, each token attending to itself only.

    Args:
        model: Any causal language model of transformers.
        name: The model's name, for messages.
        tokens: int64 [n], a few ordinary token ids.

    Returns:
        The attention call of each layer over [positions * n] tokens, and the positions, int64.

    Raises:
        UnsupportedModelError: The model does not call the attention function exactly once in each
            layer, or fails at far positions.
    """

    def run(positions: Tensor) -> list[AttentionCall]:
        with traced(model, "hogwild_self_only") as trace:
            repeated = positions.repeat_interleave(len(tokens))
            run_model(model, tokens.repeat(len(positions)), repeated)
        return _one_call_per_layer(model, name, trace)

    limit = _longrope_limit(model)
    positions = torch.tensor([place for place in POSITIONS if place < limit], device=tokens.device)
    try:
        return run(positions), positions.cpu()
    except (IndexError, RuntimeError) as error:
        near = positions[:2]
        fit_layers(model, name, run(near), near.cpu())  # may name a more precise reason
        raise UnsupportedModelError.because(
            name, f"it fails at position {int(positions[-1]):,}: {error}"
        ) from error


def fit_layers(
    model: PreTrainedModel, name: str, calls: list[AttentionCall], positions: Tensor
) -> list[Layer]:
    """Finds each layer's rotation from `probe_positions`; windows are left None.

    Raises:
        UnsupportedModelError: No rotation explains what a layer does.
    """
    frequencies = frequency_vectors(model)
    shared: dict[str, Rotation] = {}
    layers = []
    for index, call in enumerate(calls):
        rotation = _fit_rotation(name, index, call, frequencies, positions)
        # One object per distinct rotation, so that a pass computes each table of cosines once.
        key = f"{rotation.name} {rotation.frequency.tolist()}"
        rotation = shared.setdefault(key, rotation.to(call.key.device))
        heads, kv_heads = call.query.shape[1], call.key.shape[1]
        sizes = call.key.shape[3], call.value.shape[3]
        layers.append(Layer(index, heads, kv_heads, *sizes, rotation=rotation, window=None))
    return layers


def probe_plain(
    model: PreTrainedModel, name: str, tokens: Tensor
) -> tuple[list[AttentionCall], Tensor]:
    """The model's own plain forward of `tokens` [n], traced.

    Returns:
        The attention call of each layer, with its window and its output, and the logits, float32
        [n, vocab].

    Raises:
        UnsupportedModelError: A mask is neither causal nor a sliding window.
    """
    with traced(model, "hogwild_plain") as trace:
        logits = run_model(model, tokens, torch.arange(len(tokens), device=tokens.device))
    calls = _one_call_per_layer(model, name, trace)
    for index, call in enumerate(calls):
        if call.mask is not None and call.mask.fault is not None:
            raise UnsupportedModelError.because(name, call.mask.fault, index)
    return calls, logits


def _longrope_limit(model: PreTrainedModel) -> int:
    """Positions below which longrope's short frequencies hold; other models have no such limit."""
    configs: list[Any] = [
        module.config
        for module in model.modules()
        if getattr(module, "rope_type", None) == "longrope"
    ]
    limits: list[int] = [
        config.rope_parameters["original_max_position_embeddings"] for config in configs
    ]
    return min(limits, default=sys.maxsize)


def _one_call_per_layer(model: PreTrainedModel, name: str, trace: Trace) -> list[AttentionCall]:
    """The attention calls in the order of their layers; raises unless each layer makes one."""
    from transformers import DynamicCache

    expected = len(DynamicCache(config=model.config.get_text_config(decoder=True)).layers)
    calls: dict[int, AttentionCall] = {}
    for call in trace.calls:
        index = getattr(call.module, "layer_idx", None)
        if not isinstance(index, int):
            raise UnsupportedModelError.because(
                name, f"{type(call.module).__name__} calls attention without a layer index"
            )
        if index in calls:
            raise UnsupportedModelError.because(
                name, "it calls the attention interface more than once per pass", index
            )
        unknown = sorted(
            option
            for option, value in call.options.items()
            if value is not None and value is not False and option not in SUPPORTED_OPTIONS
        )
        if unknown:
            raise UnsupportedModelError.because(
                name,
                f"its attention takes {', '.join(unknown)}, which the engine does not know how to "
                "compute across blocks",
                index,
            )
        calls[index] = call
    missing = sorted(set(range(expected)) - set(calls))
    if missing:
        raise UnsupportedModelError.because(
            name,
            "its attention does not go through transformers' attention interface "
            f"({len(missing)} of {expected} layers never call it)",
            missing[0],
        )
    return [calls[index] for index in range(len(calls))]


def _fit_rotation(
    name: str, index: int, call: AttentionCall, frequencies: list[Tensor], positions: Tensor
) -> Rotation:
    """The rotation that explains one layer's queries and keys at all positions."""

    def by_position(states: Tensor) -> Tensor:  # [heads, positions, tokens, dim]
        heads, _, dim = states[0].shape
        return states[0].reshape(heads, len(positions), -1, dim).to("cpu", torch.float32)

    query, key, value = (by_position(states) for states in (call.query, call.key, call.value))
    near = NEAR_MISFIT if call.key.dtype == torch.float32 else FAR_MISFIT
    bound = torch.where(positions <= 500, near, FAR_MISFIT)
    drift = (value - value[:, :1]).abs().amax() / value.abs().amax().clamp_min(1e-30)
    if drift > FAR_MISFIT:
        raise UnsupportedModelError.because(
            name,
            f"its hidden states depend on absolute position (values change by {drift:.2g} of their "
            "size): learned or sinusoidal position embeddings, not rotary ones",
            index,
        )
    best, excess = None, torch.full_like(bound, torch.inf)
    for rotation in candidate_rotations(frequencies, call.key.shape[3]):
        by_key = misfit(rotation, key, positions) / bound
        by_both = torch.maximum(by_key, misfit(rotation, query, positions) / bound)
        if by_both.max() <= 1:
            return rotation
        if by_key.max() < excess.max():
            best, excess, both = rotation, by_key, by_both
    assert best is not None  # NoPE is always a candidate
    if excess.max() <= 1:
        wrong = int(positions[int((both > 1).nonzero()[0])])
        reason = (
            "its keys rotate with position but its queries change in another way, such as a scale "
            f"that depends on absolute position (seen at position {wrong:,})"
        )
    else:
        wrong = int(positions[int((excess > 1).nonzero()[0])])
        reason = (
            "its keys do not change by a pure rotation that grows with position (the best fit, "
            f"{best.name}, is off by {float((excess * bound).max()):.2g} of their size, first at "
            f"position {wrong:,})"
        )
    raise UnsupportedModelError.because(name, reason, index)


# The two attention functions of the probe, and the mask function of the second.


def _trace_call(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]
) -> AttentionCall:
    call = AttentionCall(module, query, key, value, options)
    _TRACE.get().calls.append(call)
    return call


def _attend_to_self(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  the name under which some families pass it
    **options: Any,
) -> tuple[Tensor, None]:
    """Every token attends to itself only: the output is its own value."""
    _trace_call(module, query, key, value, options)
    out = value.repeat_interleave(query.shape[1] // value.shape[1], dim=1)
    return out.transpose(1, 2).contiguous(), None


def _attend_plainly(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """The modelling file's own eager attention, traced."""
    call = _trace_call(module, query, key, value, options)
    if attention_mask is None:
        call.mask = MaskProperties(window=options.get("sliding_window"))
    else:
        entry = _TRACE.get().masks.get(attention_mask.untyped_storage().data_ptr())
        unknown = MaskProperties(fault="it builds an attention mask of its own")
        call.mask = entry[1] if entry else unknown
    out, weights = _eager_attention(module)(module, query, key, value, attention_mask, **options)
    call.out = out
    return out, weights


def _eager_attention(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """`eager_attention_forward` of the file that defines the module, or of one of its bases."""
    for base in type(module).__mro__:
        function = getattr(sys.modules[base.__module__], "eager_attention_forward", None)
        if callable(function):
            return function  # type: ignore[no-any-return]
    raise LookupError(f"{type(module).__module__} defines no eager_attention_forward")


def _trace_mask(*, mask_function: Callable[..., Tensor], **options: Any) -> Tensor | None:
    """The eager mask; what it hides is measured and traced."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    mask: Tensor | None = ALL_MASK_ATTENTION_FUNCTIONS["eager"](
        mask_function=mask_function, **options
    )
    if mask is not None:
        properties = _measure_mask(mask_function, options.get("local_size"), options["device"])
        _TRACE.get().masks[mask.untyped_storage().data_ptr()] = mask, properties
    return mask


def _measure_mask(
    mask_function: Callable[..., Tensor], local_size: int | None, device: torch.device
) -> MaskProperties:
    """Asks an index-based mask function what a few far-apart tokens see."""
    size = local_size or 64
    windows = set()
    for position in sorted({0, 1, size - 1, size, size + 1, 2 * size + 3}):
        index = torch.arange(position + 2, device=device)
        zero = torch.zeros((), dtype=torch.int64, device=device)
        try:
            seen = mask_function(zero, zero, torch.full_like(index, position), index)
        except (IndexError, RuntimeError) as error:
            return MaskProperties(
                fault=f"its attention mask depends on more than distance ({error})"
            )
        visible = index[seen.expand_as(index)].tolist()
        first = visible[0] if visible else 0
        if visible != list(range(first, position + 1)):
            return MaskProperties(fault="its attention mask is not causal")
        if first:
            windows.add(position + 1 - first)
    if len(windows) > 1:
        return MaskProperties(
            fault=f"its attention is chunked (chunks of {local_size} tokens), not a sliding "
            "window: what a token sees depends on its absolute position"
        )
    return MaskProperties(window=windows.pop() if windows else None)


def _register_probes() -> None:
    """Registers these functions with transformers, which is imported here as it is slow."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register("hogwild_self_only", _attend_to_self)
    AttentionInterface.register("hogwild_plain", _attend_plainly)
    AttentionMaskInterface.register("hogwild_plain", _trace_mask)
