"""The self-check: what it reports, and that models which cheat do not pass it."""

from __future__ import annotations

import logging
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaModel, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.llama.modeling_llama import eager_attention_forward as llama_attention

from hogwild_agents.engine import SharedCacheModel
from hogwild_agents.engine.check import self_check
from hogwild_agents.engine.check.probe import fit_layers
from hogwild_agents.engine.layers import Layer
from hogwild_agents.engine.rotary import Rotation
from hogwild_agents.errors import UnsupportedModelError
from tests.unit.engine.families import ACCEPTED, REFUSED, Family, build
from tests.unit.engine.reference import LLAMA, block_of, some_tokens

PARTS = ["structure", "rotation", "windows", "layer by layer", "end to end"]
BY_NAME = {family.name: family for family in (*ACCEPTED, *REFUSED)}


def test_report_of_a_sound_model(llama: SharedCacheModel, mistral: SharedCacheModel) -> None:
    report = llama.report
    assert [finding.part for finding in report.findings] == PARTS
    assert all(finding.passed and finding.verdict for finding in report.findings)
    assert all(finding.seconds > 0 for finding in report.findings)
    assert report.seconds == pytest.approx(sum(finding.seconds for finding in report.findings))
    verdicts = [finding.verdict for finding in report.findings]
    assert verdicts[:3] == [
        "2 attention layers, each called once",
        "2 x half 16/16",
        "2 x full",
    ]
    assert mistral.report.findings[2].verdict == "2 x 7"


def test_what_is_measured_of_the_layers(mistral: SharedCacheModel) -> None:
    for index, layer in enumerate(mistral.layers):
        assert layer.index == index
        assert (layer.heads, layer.kv_heads, layer.key_dim, layer.value_dim) == (4, 2, 16, 16)
        assert layer.window == 7
    assert mistral.layers[0].rotation is mistral.layers[1].rotation


@pytest.mark.parametrize(
    ("name", "rotations", "windows", "sizes"),
    [
        ("phi", ["half 8/16"] * 2, [None, None], (16, 16)),
        ("smollm3", ["half 16/16", "none"], [None, None], (16, 16)),
        ("gemma2", ["half 16/16"] * 2, [7, None], (16, 16)),
        ("cohere", ["interleaved 16/16"] * 2, [None, None], (16, 16)),
        ("nanochat", ["half 16/16 backwards"] * 2, [None, None], (16, 16)),
        ("deepseek_v3", ["half 16/24 at the end"] * 2, [None, None], (24, 12)),
    ],
)
def test_families_as_they_are(
    name: str, rotations: list[str], windows: list[int | None], sizes: tuple[int, int]
) -> None:
    layers = SharedCacheModel.from_pretrained(build(BY_NAME[name])).layers
    assert [layer.rotation.name for layer in layers] == rotations
    assert [layer.window for layer in layers] == windows
    assert all((layer.key_dim, layer.value_dim) == sizes for layer in layers)


def test_the_check_leaves_no_memory_behind() -> None:
    model = SharedCacheModel.from_pretrained(build(LLAMA))
    assert model.pool.used_bytes == 0
    assert model.pool.keys[0].numel() == 0


def test_a_refusal_keeps_what_had_been_found() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        SharedCacheModel.from_pretrained(build(BY_NAME["llama4_text"]))
    report = caught.value.report
    assert report is not None
    assert [finding.part for finding in report.findings] == PARTS[:3]
    assert [finding.passed for finding in report.findings] == [True, True, False]
    assert report.findings[-1].seconds > 0
    assert caught.value.reason in report.findings[-1].verdict


def test_skipping_the_check_warns_and_works(
    llama: SharedCacheModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="hogwild_agents"):
        model = SharedCacheModel.from_pretrained(build(LLAMA), self_check=False)
    assert "Self-check skipped" in caplog.text
    assert [finding.part for finding in model.report.findings] == PARTS[:3]
    prompts = [block_of(each, some_tokens(20)) for each in (model, llama)]
    got, expected = (
        each.forward([[prompt, each.new_block()]], [[1, 2]])
        for each, prompt in zip((model, llama), prompts, strict=True)
    )
    assert (got - expected).abs().max() < 1e-5


def test_checking_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="hogwild_agents"):
        SharedCacheModel.from_pretrained(build(LLAMA))
    assert not caplog.records


# Models that cheat: each is a sound Llama but for one module.

Cheat = Callable[[PreTrainedModel], None]


def _hook_positions(model: PreTrainedModel, apply: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Lets what layer 1's attention puts out depend on the position ids of the call."""
    seen: list[Tensor] = []

    def remember(_: nn.Module, __: tuple[Any, ...], options: dict[str, Any]) -> None:
        seen[:] = [options["position_ids"]]

    base = model.model
    assert isinstance(base, LlamaModel)
    base.register_forward_pre_hook(remember, with_kwargs=True)
    attention: Any = base.layers[1].self_attn
    attention.register_forward_hook(
        lambda _module, _inputs, out: (apply(out[0], seen[0][..., None].float()), *out[1:])
    )


def _shift_by_position(model: PreTrainedModel) -> None:
    """Adds something to the attention's output that depends on the absolute position."""
    _hook_positions(model, lambda out, position: out + 0.3 * torch.sin(position))


def _depend_on_order(model: PreTrainedModel) -> None:
    """Adds the mean of the tokens before it, as a convolution or a recurrent layer might."""

    def mix(_: nn.Module, __: tuple[Any, ...], out: Tensor) -> Tensor:
        count = torch.arange(1, out.shape[1] + 1)[None, :, None]
        return out + 0.5 * out.cumsum(1) / count

    model.model.layers[1].mlp.register_forward_hook(mix)


def _replace_forward(module: nn.Module, **changed: Any) -> None:
    """Lets an attention module pass other options to registered functions than to eager ones."""
    original = type(module).forward

    def forward(self: nn.Module, *arguments: Any, **options: Any) -> Any:
        ours = self.config._attn_implementation == "hogwild"  # type: ignore[union-attr]
        before = {name: getattr(self, name) for name in changed}
        for name, value in changed.items():
            setattr(self, name, value if ours else before[name])
        try:
            return original(self, *arguments, **options)
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    module.forward = types.MethodType(forward, module)


def _scale_only_for_us(model: PreTrainedModel) -> None:
    """Scales the scores of layer 1 otherwise when the engine's own function is in use."""
    _replace_forward(model.model.layers[1].self_attn, scaling=1.0)


class WarmAttention(LlamaAttention):
    """Its file's eager function, which is the one below, sharpens the scores of layer 1."""


def eager_attention_forward(module: nn.Module, *arguments: Any, **options: Any) -> Any:
    """The eager attention of `WarmAttention`; transformers finds it by this name."""
    if module.layer_idx == 1:
        options["scaling"] = 1.1 * options["scaling"]
    return llama_attention(module, *arguments, **options)


def _scale_only_in_eager(model: PreTrainedModel) -> None:
    """Scales the scores of layer 1 in a way that no registered function can see."""
    for layer in model.model.layers:
        layer.self_attn.__class__ = WarmAttention


@pytest.mark.parametrize(
    ("cheat", "part", "layer"),
    [
        (_shift_by_position, "end to end", None),
        (_depend_on_order, "end to end", None),
        (_scale_only_for_us, "end to end", None),
        (_scale_only_in_eager, "layer by layer", 1),
    ],
)
def test_a_model_that_cheats_is_refused(cheat: Cheat, part: str, layer: int | None) -> None:
    model = build(LLAMA)
    cheat(model)
    with pytest.raises(UnsupportedModelError) as caught:
        SharedCacheModel.from_pretrained(model)
    report = caught.value.report
    assert report is not None
    assert report.findings[-1].part == part
    assert caught.value.layer == layer
    assert "off by" in caught.value.reason


def _noisy_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Rotation.table
    monkeypatch.setattr(Rotation, "table", lambda self, shifts: table(self, shifts + (shifts != 0)))


def test_a_wrong_rotation_is_found_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the engine itself rotates queries wrongly, the first rotary layer is named."""
    model = build(BY_NAME["smollm3"])
    probed = SharedCacheModel.from_pretrained(build(BY_NAME["smollm3"]))
    assert [layer.rotation.nope for layer in probed.layers] == [False, True]
    monkeypatch.setattr(
        "hogwild_agents.engine.check.self_check.fit_layers", _then(_noisy_rotation, monkeypatch)
    )
    with pytest.raises(
        UnsupportedModelError, match="layer 0: attention over blocks is off by"
    ) as caught:
        SharedCacheModel.from_pretrained(model)
    assert caught.value.layer == 0
    assert caught.value.report is not None
    assert caught.value.report.findings[-1].part == "layer by layer"


def _then(
    spoil: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """`fit_layers`, after which the engine is spoilt."""

    def fit(*arguments: Any) -> Any:
        layers = fit_layers(*arguments)
        spoil(monkeypatch)
        return layers

    return fit


@pytest.mark.parametrize("window", [6, 8, None])
def test_a_wrong_window_is_found_layer_by_layer(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An off-by-one in the second layer's window does not pass."""

    def replace_wrongly(layer: Layer, **changes: Any) -> Layer:
        return replace(layer, **({"window": window} if layer.index == 1 else changes))

    monkeypatch.setattr(f"{self_check.__name__}.replace", replace_wrongly)
    family = Family("mistral", "mistral", {"sliding_window": 7})
    with pytest.raises(UnsupportedModelError, match="layer 1: attention over blocks") as caught:
        SharedCacheModel.from_pretrained(build(family))
    assert caught.value.layer == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "deepseek_v3", "gpt_oss"])
def test_half_precision_passes(name: str, dtype: str) -> None:
    model = SharedCacheModel.from_pretrained(build(BY_NAME[name]), dtype=dtype)
    assert all(finding.passed for finding in model.report.findings)
    logits = model.forward([[model.new_block()]], [[1, 2, 3]])
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("cheat", [_depend_on_order, _scale_only_for_us])
def test_cheating_in_half_precision_is_refused_too(cheat: Cheat) -> None:
    model = build(LLAMA)
    cheat(model)
    with pytest.raises(UnsupportedModelError):
        SharedCacheModel.from_pretrained(model, dtype="bfloat16")
