"""Measures a model on load: what its attention layers are, and how they turn with position.

Two short runs of the unmodified model tell everything:

- `probe_positions` lets every token attend to itself only, so that what a layer receives does not
  depend on position, and places the same tokens at several positions: whatever changes in queries
  and keys is the layer's rotation.
- `probe_plain` is the model's own plain forward, run through its own eager attention and masks, and
  watched: it tells the window of each layer, and keeps what `check.py` compares with.
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
"""Where the probe puts its tokens; the far ones show scalings that set in late."""

NEAR, FAR = 1e-3, 3e-2
"""Largest misfit of a rotation up to 500 positions away and beyond, in float32: angles that a
model computes in float32 are off by 3e-3 radians at 50,000. Lower precisions have `FAR` alone."""

HARMLESS = frozenset(
    [
        *("scaling", "softcap", "s_aux", "sliding_window", "dropout", "is_causal", "layer_idx"),
        *("position_ids", "position_embeddings", "cache_position", "use_cache", "return_dict"),
        *("output_attentions", "output_hidden_states", "output_router_logits"),
        *("logits_to_keep", "num_items_in_batch"),
    ]
)
"""Keyword arguments of an attention call that the engine honours or that change no score."""


PLAIN_CACHES = frozenset(["DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"])
"""transformers' caches of keys and values. A dummy belongs to a layer that reuses another's."""


@dataclass(slots=True)
class Call:
    """One call of the attention function, as the model made it."""

    module: nn.Module
    query: Tensor  # [1, heads, tokens, key_dim]
    key: Tensor  # [1, kv_heads, tokens, key_dim]
    value: Tensor  # [1, kv_heads, tokens, value_dim]
    options: dict[str, Any]
    mask: Mask | None = None
    out: Tensor | None = None  # [1, tokens, heads, value_dim], of the model's own eager attention


@dataclass(frozen=True, slots=True)
class Mask:
    """What an attention mask hides beyond the future."""

    window: int | None = None
    fault: str | None = None  # why the engine cannot compute it


@dataclass(slots=True)
class Watch:
    """What a watched run saw."""

    calls: list[Call] = field(default_factory=list)
    masks: dict[int, tuple[Tensor, Mask]] = field(default_factory=dict)
    """By the address of the mask's storage, which survives slicing; holding the tensor keeps it."""


_WATCH: ContextVar[Watch] = ContextVar("hogwild_watch")


def check_structure(model: PreTrainedModel, name: str) -> None:
    """Refuses a model that its configuration alone shows to be unsuitable.

    Raises:
        UnsupportedModelError: It is no decoder, has token mixers that are not softmax attention, or
            its rotary frequencies depend on the length of the text.
    """
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(name, "it is an encoder-decoder, not a decoder")
    for layer, reason in _odd_cache_layers(config):
        raise UnsupportedModelError(name, reason, layer)
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        for kind in kinds.values() if isinstance(kinds, dict) else [kinds]:
            if isinstance(kind, str) and "dynamic" in kind:
                raise UnsupportedModelError(
                    name,
                    f"its rotary frequencies depend on the length of the text ({kind} NTK "
                    "scaling), so stored keys would go stale; use yarn, linear or llama3 scaling",
                )


def _odd_cache_layers(config: PreTrainedConfig) -> Iterator[tuple[int | None, str]]:
    """Layers whose cache is not plain keys and values, with the reason to refuse them."""
    from transformers import DynamicCache

    try:
        layers = DynamicCache(config=config).layers
    except Exception as error:  # noqa: BLE001  any failure here means the same: not a plain cache
        yield None, f"transformers has no plain key/value cache for it ({error})"
        return
    for index, layer in enumerate(layers):
        kind = type(layer).__name__
        if "LinearAttention" in kind:
            yield (
                index,
                (
                    "it mixes tokens by linear attention, a convolution or a state-space model "
                    f"({kind}), whose state cannot be shared or moved like keys and values"
                ),
            )
        elif kind not in PLAIN_CACHES:
            yield (
                index,
                f"its cache is a {kind} (a sparse indexer or the like), not keys and values",
            )


def run_model(model: PreTrainedModel, tokens: Tensor, positions: Tensor) -> Tensor:
    """One forward of `tokens` [n] at `positions` [n] without a cache: logits float32 [n, vocab]."""
    with torch.no_grad():
        out = model(input_ids=tokens[None], position_ids=positions[None], use_cache=False)
    logits: Tensor = out.logits[0]
    return logits.float()


@contextmanager
def watched(model: PreTrainedModel, implementation: str) -> Iterator[Watch]:
    """Runs of `model` in this context go through `implementation` and are recorded."""
    _register()
    watch = Watch()
    token = _WATCH.set(watch)
    model.set_attn_implementation(implementation)
    try:
        yield watch
    finally:
        _WATCH.reset(token)


def probe_positions(model: PreTrainedModel, name: str, tokens: Tensor) -> tuple[list[Call], Tensor]:
    """Runs the same tokens at several positions, each token attending to itself only.

    Args:
        model: Any causal language model of transformers.
        name: For messages.
        tokens: int64 [n], a few ordinary token ids.

    Returns:
        The attention call of each layer over [positions * n] tokens, and the positions, int64.

    Raises:
        UnsupportedModelError: The model does not call the attention function exactly once in each
            layer, or fails at far positions.
    """

    def run(places: Tensor) -> list[Call]:
        with watched(model, "hogwild_alone") as watch:
            run_model(model, tokens.repeat(len(places)), places.repeat_interleave(len(tokens)))
        return _one_call_per_layer(model, name, watch)

    limit = _frozen_limit(model)
    places = torch.tensor([place for place in POSITIONS if place < limit], device=tokens.device)
    try:
        return run(places), places.cpu()
    except (IndexError, RuntimeError) as error:
        calls = run(places[:2])  # what is wrong already nearby has a better name
        fit_layers(model, name, calls, places[:2].cpu())
        raise UnsupportedModelError(
            name, f"it fails at position {int(places[-1]):,}: {error}"
        ) from error


def fit_layers(
    model: PreTrainedModel, name: str, calls: list[Call], positions: Tensor
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
        # One object per distinct rotation, so that a pass computes each table of angles once.
        key = f"{rotation.name} {rotation.frequency.tolist()}"
        rotation = shared.setdefault(key, rotation.to(call.key.device))
        heads, kv_heads = call.query.shape[1], call.key.shape[1]
        sizes = call.key.shape[3], call.value.shape[3]
        layers.append(Layer(index, heads, kv_heads, *sizes, rotation=rotation, window=None))
    return layers


def probe_plain(model: PreTrainedModel, name: str, tokens: Tensor) -> tuple[list[Call], Tensor]:
    """The model's own plain forward of `tokens` [n], watched.

    Returns:
        The attention call of each layer, with its window and its output, and the logits, float32
        [n, vocab].

    Raises:
        UnsupportedModelError: A mask is neither causal nor a sliding window.
    """
    with watched(model, "hogwild_plain") as watch:
        logits = run_model(model, tokens, torch.arange(len(tokens), device=tokens.device))
    calls = _one_call_per_layer(model, name, watch)
    for index, call in enumerate(calls):
        if call.mask is not None and call.mask.fault is not None:
            raise UnsupportedModelError(name, call.mask.fault, index)
    return calls, logits


def _frozen_limit(model: PreTrainedModel) -> int:
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


def _one_call_per_layer(model: PreTrainedModel, name: str, watch: Watch) -> list[Call]:
    from transformers import DynamicCache

    expected = len(DynamicCache(config=model.config.get_text_config(decoder=True)).layers)
    calls: dict[int, Call] = {}
    for call in watch.calls:
        index = getattr(call.module, "layer_idx", None)
        if not isinstance(index, int):
            raise UnsupportedModelError(
                name, f"{type(call.module).__name__} calls attention without a layer index"
            )
        if index in calls:
            raise UnsupportedModelError(
                name, "it calls the attention interface more than once per pass", index
            )
        unknown = sorted(
            option
            for option, value in call.options.items()
            if value is not None and value is not False and option not in HARMLESS
        )
        if unknown:
            raise UnsupportedModelError(
                name,
                f"its attention takes {', '.join(unknown)}, which the engine does not know how to "
                "compute across blocks",
                index,
            )
        calls[index] = call
    missing = sorted(set(range(expected)) - set(calls))
    if missing:
        raise UnsupportedModelError(
            name,
            "its attention does not go through transformers' attention interface "
            f"({len(missing)} of {expected} layers never call it)",
            missing[0],
        )
    return [calls[index] for index in range(len(calls))]


def _fit_rotation(
    name: str, index: int, call: Call, frequencies: list[Tensor], positions: Tensor
) -> Rotation:
    """The rotation that explains one layer's queries and keys at all positions."""

    def by_position(states: Tensor) -> Tensor:  # [heads, positions, tokens, dim]
        heads, _, dim = states[0].shape
        return states[0].reshape(heads, len(positions), -1, dim).to("cpu", torch.float32)

    query, key, value = (by_position(states) for states in (call.query, call.key, call.value))
    near = NEAR if call.key.dtype == torch.float32 else FAR
    bound = torch.where(positions <= 500, near, FAR)
    drift = (value - value[:, :1]).abs().amax() / value.abs().amax().clamp_min(1e-30)
    if drift > FAR:
        raise UnsupportedModelError(
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
    assert best is not None  # there is always the candidate that turns nothing
    if excess.max() <= 1:
        wrong = int(positions[int((both > 1).nonzero()[0])])
        reason = (
            "its keys turn with position but its queries change in another way, such as a scale "
            f"that depends on absolute position (seen at position {wrong:,})"
        )
    else:
        wrong = int(positions[int((excess > 1).nonzero()[0])])
        reason = (
            "its keys are not turned by a pure rotation that grows with position (the best fit, "
            f"{best.name}, is off by {float((excess * bound).max()):.2g} of their size, first at "
            f"position {wrong:,})"
        )
    raise UnsupportedModelError(name, reason, index)


# The two attention functions of the probe, and the mask function of the second.


def _record(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]
) -> Call:
    call = Call(module, query, key, value, options)
    _WATCH.get().calls.append(call)
    return call


def _attend_alone(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  the name under which some families pass it
    **options: Any,
) -> tuple[Tensor, None]:
    """Every token attends to itself only: the output is its own value."""
    _record(module, query, key, value, options)
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
    """The modelling file's own eager attention, watched."""
    call = _record(module, query, key, value, options)
    if attention_mask is None:
        call.mask = Mask(window=options.get("sliding_window"))
    else:
        known = _WATCH.get().masks.get(attention_mask.untyped_storage().data_ptr())
        call.mask = known[1] if known else Mask(fault="it builds an attention mask of its own")
    out, weights = _eager_attention(module)(module, query, key, value, attention_mask, **options)
    call.out = out
    return out, weights


def _eager_attention(module: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """`eager_attention_forward` of the file that defines the module, or of one of its bases."""
    for kind in type(module).__mro__:
        function = getattr(sys.modules[kind.__module__], "eager_attention_forward", None)
        if callable(function):
            return function  # type: ignore[no-any-return]
    raise LookupError(f"{type(module).__module__} defines no eager_attention_forward")


def _watch_mask(*, mask_function: Callable[..., Tensor], **options: Any) -> Tensor | None:
    """Measures what a mask hides, then returns the eager mask."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    mask: Tensor | None = ALL_MASK_ATTENTION_FUNCTIONS["eager"](
        mask_function=mask_function, **options
    )
    if mask is not None:
        measured = _measure_mask(mask_function, options.get("local_size"), options["device"])
        _WATCH.get().masks[mask.untyped_storage().data_ptr()] = mask, measured
    return mask


def _measure_mask(
    mask_function: Callable[..., Tensor], local_size: int | None, device: torch.device
) -> Mask:
    """Asks an index-based mask function what a few far-apart tokens see."""
    size = local_size or 64
    windows = set()
    for place in sorted({0, 1, size - 1, size, size + 1, 2 * size + 3}):
        index = torch.arange(place + 2, device=device)
        zero = torch.zeros((), dtype=torch.int64, device=device)
        try:
            seen = mask_function(zero, zero, torch.full_like(index, place), index)
        except (IndexError, RuntimeError) as error:
            return Mask(fault=f"its attention mask depends on more than distance ({error})")
        visible = index[seen.expand_as(index)].tolist()
        first = visible[0] if visible else 0
        if visible != list(range(first, place + 1)):
            return Mask(fault="its attention mask is not causal")
        if first:
            windows.add(place + 1 - first)
    if len(windows) > 1:
        return Mask(
            fault=f"its attention is chunked (chunks of {local_size} tokens), not a sliding "
            "window: what a token sees depends on its absolute position"
        )
    return Mask(window=windows.pop() if windows else None)


def _register() -> None:
    """Tells transformers about the functions above; only here, as transformers loads slowly."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register("hogwild_alone", _attend_alone)
    AttentionInterface.register("hogwild_plain", _attend_plainly)
    AttentionMaskInterface.register("hogwild_plain", _watch_mask)
