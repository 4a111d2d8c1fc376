"""Tiny random configurations of many families, to compare the engine with their plain forward."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from packaging.version import Version
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers import __version__ as transformers_version

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GPTJ_REFUSAL = "interface" if Version(transformers_version) < Version("5.24") else "rotation"
"""GPT-J goes through the attention interface since transformers 5.24, and is refused later."""

Overrides = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """One configuration of a model, and whether the engine computes it."""

    name: str  # unique test id, such as "llama-yarn"
    model_type: str  # by which transformers knows the family
    config: Overrides  # on top of those of `COMMON` that its configuration has
    refusal: str | None = None  # a lower-case keyword that the engine's refusal must mention


COMMON: Overrides = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# The window is far shorter than the forty tokens of a test, and odd, so that an off-by-one shows.
WINDOW: Overrides = {"sliding_window": 7}
FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
ALTERNATING: Overrides = {**WINDOW, "layer_types": [SLIDING, FULL]}
# Both kinds of layer twice: for families that share keys and values between layers of one kind.
ALTERNATING_TWICE: Overrides = {
    **WINDOW,
    "num_hidden_layers": 4,
    "layer_types": [SLIDING, FULL] * 2,
}

# Families name their sizes of a mixture of experts in a few ways.
EXPERTS: Overrides = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
QWEN_EXPERTS: Overrides = {**EXPERTS, "shared_expert_intermediate_size": 48}
LOCAL_EXPERTS: Overrides = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED: Overrides = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
}
GROUPED: Overrides = {**ROUTED, "n_group": 2, "topk_group": 1}
HALF_SPARSE: Overrides = {"mlp_layer_types": ["dense", "sparse"]}

# Multi-head latent attention; the three head sizes differ, so that no two can be confused.
LATENT: Overrides = {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 16,
    "v_head_dim": 12,
}
DEEPSEEK: Overrides = {**LATENT, **GROUPED, "first_k_dense_replace": 1}
INDEXER: Overrides = {**LATENT, "index_topk": 8, "index_head_dim": 32, "index_n_heads": 2}

# Rotary scalings whose original length is well within a test's reach.
LINEAR_ROPE: Overrides = {"rope_type": "linear", "factor": 4.0}
DYNAMIC_ROPE: Overrides = {"rope_type": "dynamic", "factor": 2.0}
YARN: Overrides = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3_ROPE: Overrides = {
    **YARN,
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
PARTIAL: Overrides = {"partial_rotary_factor": 0.5}
LONGROPE: Overrides = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.4],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0],
    "original_max_position_embeddings": 256,
}


def _two_tables(sliding: Overrides | None = None, full: Overrides | None = None) -> Overrides:
    """Rotary parameters of a family with one table for each kind of layer."""
    return {
        SLIDING: {"rope_type": "default", "rope_theta": 500.0, **(sliding or {})},
        FULL: {"rope_type": "default", "rope_theta": 10_000.0, **(full or {})},
    }


# Scalings that differ from the usual ones, so that a missing one shows.
GRANITE: Overrides = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.7,
    "attention_multiplier": 0.4,
    "logits_scaling": 2.0,
}
GRANITE_EXPERTS: Overrides = {**GRANITE, **LOCAL_EXPERTS, "shared_intermediate_size": 48}
GEMMA_SCALE: Overrides = {"query_pre_attn_scalar": 10}
CAPPED: Overrides = {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0}
GEMMA3N: Overrides = {
    **ALTERNATING_TWICE,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 128,
    "num_kv_shared_layers": 2,
    "laurel_rank": 8,
    "rope_parameters": _two_tables(),
}
GEMMA4: Overrides = {
    **ALTERNATING_TWICE,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 128,
    "global_head_dim": 32,
}
PER_LAYER_THETA: Overrides = {
    **GRANITE,
    **WINDOW,
    "num_hidden_layers": 4,
    "layer_types": [FULL, SLIDING, SLIDING, FULL],
    "layer_rope_theta": [10_000.0, 500.0, 10_000.0, 0.0],
}
DBRX: Overrides = {
    "d_model": 64,
    "attn_config": {"kv_n_heads": 2, "clip_qkv": 2.5, "rope_theta": 10_000.0},
    "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
}


def _family(
    name: str,
    *shared: Overrides,
    model_type: str | None = None,
    refusal: str | None = None,
    **config: Any,
) -> Family:
    """A family whose model type, unless given, is its name up to the first hyphen."""
    overrides = {key: value for part in (*shared, config) for key, value in part.items()}
    return Family(name, model_type or name.partition("-")[0], overrides, refusal)


ACCEPTED: tuple[Family, ...] = (
    _family("llama"),
    _family("llama-mqa", num_key_value_heads=1),
    _family("llama-mha", num_key_value_heads=4),
    _family("llama-wide-heads", head_dim=32),
    _family("llama-attention-bias", attention_bias=True),
    _family("llama-linear", rope_parameters=LINEAR_ROPE),
    _family("llama-yarn", rope_parameters=YARN),
    _family("llama-llama3", rope_parameters=LLAMA3_ROPE),
    _family("arcee"),
    _family("apertus", rope_parameters=LLAMA3_ROPE),
    _family("aria_text", moe_num_experts=4, moe_topk=2),
    _family("bitnet"),
    _family("cwm", ALTERNATING, rope_parameters=LLAMA3_ROPE),
    _family("helium"),
    _family("hyperclovax", GRANITE),
    _family("internlm3", attention_bias=True, mlp_bias=True),
    _family("iquestcoder"),
    _family("jais2", attention_bias=True),
    _family("mellum", ALTERNATING, EXPERTS, rope_parameters=_two_tables()),
    _family("nanochat"),
    _family("nemotron"),
    _family("persimmon"),
    _family("seed_oss", attention_bias=True),
    _family("smollm3", no_rope_layers=[1, 0]),
    _family("smollm3-sliding", ALTERNATING, use_sliding_window=True, no_rope_layers=[1, 0]),
    # Qwen
    _family("qwen2"),
    _family("qwen2-sliding", WINDOW, use_sliding_window=True, max_window_layers=1),
    _family("qwen2_moe", QWEN_EXPERTS, mlp_only_layers=[0]),
    _family(
        "qwen2_moe-sliding", QWEN_EXPERTS, ALTERNATING, use_sliding_window=True, mlp_only_layers=[1]
    ),
    _family("qwen3"),
    _family("qwen3-yarn", rope_parameters=YARN),
    _family("qwen3-sliding", WINDOW, use_sliding_window=True, max_window_layers=1),
    _family("qwen3_moe", EXPERTS, mlp_only_layers=[0]),
    # Mistral
    _family("mistral", WINDOW),
    _family("mistral-full", sliding_window=None),
    _family("ministral", ALTERNATING),
    _family("mixtral", LOCAL_EXPERTS),
    _family("mixtral-sliding", LOCAL_EXPERTS, WINDOW),
    _family("starcoder2", WINDOW),
    # OLMo
    _family("olmo", clip_qkv=2.5),
    _family("olmo2"),
    _family("olmo3", ALTERNATING),
    _family("olmo3-yarn", ALTERNATING, rope_parameters=_two_tables(full=YARN)),
    _family("olmoe", EXPERTS, intermediate_size=32),
    _family("flex_olmo", EXPERTS, intermediate_size=32),
    # Gemma
    _family("gemma"),
    _family("gemma2", ALTERNATING, GEMMA_SCALE, CAPPED),
    _family("vaultgemma", ALTERNATING, GEMMA_SCALE, CAPPED),
    _family("gemma3_text", ALTERNATING, GEMMA_SCALE, rope_parameters=_two_tables(full=LINEAR_ROPE)),
    _family("gemma3n_text", GEMMA3N),
    _family("gemma3n_text-unshared", GEMMA3N, num_kv_shared_layers=0),
    _family("gemma4_text", GEMMA4, num_kv_shared_layers=2),
    _family(
        "gemma4_text-keys-as-values", GEMMA4, attention_k_eq_v=True, num_global_key_value_heads=1
    ),
    _family("gemma4_text-moe", GEMMA4, EXPERTS, enable_moe_block=True, top_k_experts=2),
    _family("gemma4_unified_text", GEMMA4, num_kv_shared_layers=2),
    # Phi
    _family("phi"),
    _family("phi-qk-norm", qk_layernorm=True),
    _family("phi3", rope_parameters=PARTIAL),
    _family("phi3-sliding", WINDOW),
    _family(
        "phi3-longrope-short",
        max_position_embeddings=1024,
        original_max_position_embeddings=256,
        rope_parameters=LONGROPE,
    ),
    _family("phimoe", LOCAL_EXPERTS),
    _family("phimoe-sliding", LOCAL_EXPERTS, WINDOW, attention_bias=True),
    # GLM
    _family("glm", attention_bias=True),
    _family("glm4", attention_bias=True),
    _family("glm4_moe", ROUTED, use_qk_norm=True, attention_bias=True),
    _family("glm4_moe_lite", LATENT, ROUTED),
    _family("solar_open", ROUTED),
    # NeoX and StableLM
    _family("gpt_neox"),
    _family("gpt_neox-sequential", use_parallel_residual=False),
    _family("stablelm", use_qkv_bias=True),
    _family("stablelm-qk-norm", qk_layernorm=True, use_parallel_residual=True),
    # Granite
    _family("granite", GRANITE),
    _family("granitemoe", GRANITE, LOCAL_EXPERTS),
    _family("granitemoeshared", GRANITE_EXPERTS),
    _family(
        "granitemoehybrid-attention-only",
        GRANITE_EXPERTS,
        layer_types=[FULL, FULL],
        position_embedding_type="rope",
        mamba_n_heads=8,
    ),
    _family("granite_swa", PER_LAYER_THETA),
    _family("granitemoe_swa", GRANITE_EXPERTS, PER_LAYER_THETA),
    # Ernie
    _family("ernie4_5"),
    _family("ernie4_5_moe", moe_num_experts=4, moe_k=2, moe_intermediate_size=32),
    # Cohere
    _family("cohere", logit_scale=0.5),
    _family("cohere-qk-norm", logit_scale=0.5, use_qk_norm=True),
    _family("cohere2", ALTERNATING, logit_scale=0.5),
    _family(
        "cohere2_moe", ALTERNATING, EXPERTS, HALF_SPARSE, num_shared_experts=1, logit_scale=0.5
    ),
    # Families whose full layers know no positions, or with sinks
    _family("exaone4", ALTERNATING),
    _family("exaone4-full", sliding_window=None, layer_types=[FULL, FULL]),
    _family("exaone_moe", ALTERNATING, EXPERTS, HALF_SPARSE, num_shared_experts=1),
    _family("kolibri1", ALTERNATING, QWEN_EXPERTS),
    _family("afmoe", ALTERNATING, EXPERTS, num_dense_layers=1, num_shared_experts=1),
    _family("flint", ALTERNATING, QWEN_EXPERTS, mlp_only_layers=[0]),
    _family("gpt_oss", ALTERNATING, LOCAL_EXPERTS, rope_parameters={**YARN, "truncate": False}),
    _family(
        "mimo_v2_flash",
        ALTERNATING,
        ROUTED,
        HALF_SPARSE,
        v_head_dim=12,
        rope_parameters=_two_tables(PARTIAL, PARTIAL),
    ),
    # Multi-head latent attention
    _family("deepseek_v2", LATENT, GROUPED, topk_method="group_limited_greedy"),
    _family("deepseek_v2-dense-queries", LATENT, ROUTED, q_lora_rank=None, first_k_dense_replace=1),
    _family("deepseek_v3", DEEPSEEK),
    _family(
        "deepseek_v3-yarn", DEEPSEEK, rope_parameters={**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}
    ),
    _family("deepseek_v3-halves", DEEPSEEK, rope_interleave=False),
    _family("axk1", LATENT, GROUPED, HALF_SPARSE),
    _family("longcat_flash", LATENT, ROUTED, num_layers=2, num_hidden_layers=4, zero_expert_num=2),
    _family("minicpm3", LATENT, dim_model_base=32, scale_emb=3),
    _family("youtu", LATENT),
    # Other mixtures of experts
    _family("dbrx", DBRX),
    _family("dots1", ALTERNATING, ROUTED, first_k_dense_replace=1),
    _family("hy_v3", EXPERTS, HALF_SPARSE),
    _family("jetmoe", LOCAL_EXPERTS),
    _family(
        "laguna",
        ALTERNATING,
        QWEN_EXPERTS,
        HALF_SPARSE,
        num_attention_heads_per_layer=[8, 4],
        rope_parameters=_two_tables(full=PARTIAL),
    ),
    _family("moshi", ffn_dim=192, audio_vocab_size=128),
    _family("minimax_m2", LOCAL_EXPERTS),
    _family(
        "modernbert-decoder",
        model_type="modernbert-decoder",
        local_attention=14,
        layer_types=[SLIDING, FULL],
    ),
)

GATED_DELTA: Overrides = {
    "layer_types": [LINEAR, FULL],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
MAMBA2: Overrides = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
RECURRENT = "linear attention"

REFUSED: tuple[Family, ...] = (
    _family("qwen3_next", GATED_DELTA, QWEN_EXPERTS, refusal=RECURRENT),
    _family("qwen3_5_text", GATED_DELTA, refusal=RECURRENT),
    _family("olmo_hybrid", GATED_DELTA, refusal=RECURRENT, num_key_value_heads=4),
    _family(
        "kimi_linear",
        LATENT,
        EXPERTS,
        HALF_SPARSE,
        refusal=RECURRENT,
        q_lora_rank=None,
        layer_types=[LINEAR, FULL],
        linear_head_dim=16,
        linear_num_heads=4,
    ),
    _family("minimax", LOCAL_EXPERTS, refusal=RECURRENT, layer_types=[LINEAR, FULL], block_size=8),
    _family("lfm2", refusal=RECURRENT, layer_types=["conv", FULL], block_multiple_of=8),
    _family("bamba", MAMBA2, refusal=RECURRENT, attn_layer_indices=[1]),
    _family("falcon_h1", MAMBA2, refusal=RECURRENT, mamba_d_ssm=128),
    _family(
        "granitemoehybrid", MAMBA2, GRANITE_EXPERTS, refusal=RECURRENT, layer_types=[LINEAR, FULL]
    ),
    _family("jamba", refusal=RECURRENT, num_experts=4, attn_layer_period=2, attn_layer_offset=1),
    _family(
        "nemotron_h",
        refusal=RECURRENT,
        layer_types=[LINEAR, FULL, "mlp"],
        mamba_num_heads=8,
        mamba_head_dim=16,
        n_groups=1,
        ssm_state_size=16,
        chunk_size=8,
    ),
    _family(
        "zamba2",
        refusal=RECURRENT,
        num_key_value_heads=4,
        layers_block_type=[LINEAR, "hybrid"],
        n_mamba_heads=8,
        mamba_d_state=16,
        chunk_size=8,
    ),
    _family("mamba2", refusal=RECURRENT, num_heads=8, n_groups=1, state_size=16, chunk_size=8),
    _family("rwkv", refusal="interface"),
    _family("gpt_neox_japanese", refusal="interface"),
    _family("hrm_text", refusal="more than once"),
    _family("beam", refusal="scale"),
    _family("hunyuan_v1_moe", refusal="rotation"),
    _family("hy_v4", refusal="indexer"),
    _family("deepseek_v32", INDEXER, GROUPED, HALF_SPARSE, refusal="indexer"),
    _family(
        "glm_moe_dsa",
        INDEXER,
        ROUTED,
        HALF_SPARSE,
        refusal="indexer",
        indexer_types=["full", "shared"],
    ),
    _family(
        "llama4_text", LOCAL_EXPERTS, refusal="chunk", attention_chunk_size=8, no_rope_layers=[1, 0]
    ),
    _family(
        "ministral3", refusal="position", rope_parameters={**YARN, "llama_4_scaling_beta": 0.1}
    ),
    _family("llama-dynamic", refusal="dynamic", rope_parameters=DYNAMIC_ROPE),
    _family("gpt2", refusal="absolute"),
    _family("opt", refusal="absolute", ffn_dim=96, word_embed_proj_dim=64),
    _family("bloom", refusal="interface"),
    _family("gptj", refusal=GPTJ_REFUSAL, rotary_dim=8),
    _family("falcon", refusal="interface", ffn_hidden_size=96),
    _family("mpt", refusal="interface"),
    _family("diffllama", refusal="attention"),
    _family("doge", refusal="attention"),
    _family("hunyuan_v1_dense", refusal="rotation"),
)

GAIN = 1.2
NOISE = 0.2
QUERY_NORMS = ("q_norm", "q_layernorm", "query_layernorm")
# These do not divide their scores by the root of the head size, so they need less gain, not more.
UNSCALED = ("gemma3n_text", "gemma4_text", "gemma4_unified_text")


def build(family: Family, seed: int = 0) -> PreTrainedModel:
    """The family's model in float32 and evaluation mode, with weights that peak its attention.

    Matrices are drawn anew at a gain above one for their inputs. Norms, biases and other vectors
    keep the family's own start and get noise, so that leaving one out shows; a norm of the queries
    also gets a gain that peaks the attention, and sinks get more noise, as one near zero hardly
    counts against forty keys.
    """
    config = AutoConfig.for_model(family.model_type, **_overrides(family))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory: Any = AutoModelForCausalLM  # untyped
        model: PreTrainedModel = factory.from_config(
            config, attn_implementation="eager", dtype=torch.float32
        )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2 and "norm" not in name:
                    parameter.normal_(std=GAIN / parameter.shape[-1] ** 0.5)
                    continue
                parameter.add_(torch.randn_like(parameter), alpha=1.0 if "sink" in name else NOISE)
                if name.endswith("weight") and any(norm in name for norm in QUERY_NORMS):
                    parameter.add_(-0.5 if family.model_type in UNSCALED else 1.0)
    model.train(False)
    return model


def embeddings(model: PreTrainedModel) -> Tensor:
    """The weights of a model's input embeddings: [vocab, hidden]."""
    layer: Any = model.get_input_embeddings()
    weights: Tensor = layer.weight
    return weights


def _overrides(family: Family) -> Overrides:
    """What to build the family's configuration with; a copy, as some configurations change it."""
    common = COMMON
    if family.model_type in CONFIG_MAPPING:  # where it is not, `AutoConfig` says so
        kind = CONFIG_MAPPING[family.model_type]
        known = {field.name for field in fields(kind)} | set(kind.attribute_map)
        common = {key: value for key, value in COMMON.items() if key in known}
    return deepcopy({**common, **family.config})
