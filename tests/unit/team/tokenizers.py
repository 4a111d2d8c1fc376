"""Small real tokenizers, one of each kind that tokenizer.py must handle. No files, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = """\
Alice and Bob think about the same problem at the same time. Each sees what the other writes.

### History

**Alice [1]:** Let me think about the sum of the first numbers. The answer is 5050.

**Bob [1]:** I will check the same sum in another way, so that the answer is right.

### Work in progress: others

**Alice [2]:** The user says: what is the answer? The system says: think step by step.

The tool says that {"name": "sum", "arguments": {"first": 1, "last": 100}} is right. Äpfel, naïve.
"""

CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + (message.role if message.role != 'tool' else 'user') }}
{%- if message.name %}{{ ' (' + message.name + ')' }}{% endif %}
{{- '\\n' }}
{%- if message.role == 'tool' %}
{{- '<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- else %}
{{- message.content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""
"""As Qwen3 has it: thinking is neither opened nor closed unless it is forbidden."""

INST = """\
{{- bos_token }}
{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{%- if message.role == 'user' %}
{{- '[INST] ' + message.content + ' [/INST]' }}
{%- elif message.role == 'assistant' %}
{{- ' ' + message.content + ' ' + eos_token }}
{%- else %}
{{- raise_exception('only user and assistant roles are supported') }}
{%- endif %}
{%- endfor %}
"""
"""As Llama 2 and Mistral have it: no place for system text."""

HEADERS = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
{%- if message.tool_calls %}
{%- set call = message.tool_calls[0].function %}
{{- '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}' }}
{%- elif message.role == 'tool' %}
{{- message.content | tojson }}
{%- else %}
{{- message.content | trim }}
{%- endif %}
{{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
"""As Llama 3 has it: text is trimmed, and what a tool says is written as JSON."""

_WORDS = Regex(
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(template: str = CHATML) -> PreTrainedTokenizerFast:
    """Byte-level BPE with ChatML and thoughts between `<think>` and `</think>`."""
    tokenizer = _trained_bytes()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    marks = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in marks])
    return _wrap(tokenizer, template, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def llama3_like() -> PreTrainedTokenizerFast:
    """Byte-level BPE with headers around roles, and no thinking."""
    tokenizer = _trained_bytes()
    headers = ["<|start_header_id|>", "<|end_header_id|>"]
    texts = ["<|begin_of_text|>", "<|end_of_text|>"]
    tokenizer.add_special_tokens([*texts, *headers, "<|eot_id|>", "<|eom_id|>"])
    return _wrap(
        tokenizer,
        HEADERS,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        add_bos_token=True,
    )


def metaspace(
    scheme: Literal["first", "always", "legacy"] = "first", template: str = INST
) -> PreTrainedTokenizerFast:
    """BPE in sentencepiece's manner, with byte fallback and a space before every text.

    Args:
        scheme: Where that space goes: before the whole text, or after every added token as well;
            `legacy` is the latter as Llama 2's own file has it.
        template: How it writes a conversation.
    """
    vocabulary, merges = _trained_metaspace()
    model = models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    tokenizer = Tokenizer(model)
    if scheme == "legacy":
        prepend, replace = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([prepend, replace])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return _wrap(tokenizer, template, **names, add_bos_token=True)


def plain_bytes(*, add_bos: bool = False) -> PreTrainedTokenizerFast:
    """A token is a byte, its id the byte's value; then `<s>` 256, `</s>` 257, `<pad>` 258.

    No chat template and no thinking: the least that a tiny random model needs.
    """
    tokenizer = Tokenizer(models.BPE(_byte_letters(), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "<pad>"])
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return _wrap(tokenizer, None, **names, add_bos_token=add_bos)


def _wrap(tokenizer: Tokenizer, template: str | None, **names: Any) -> PreTrainedTokenizerFast:
    """As transformers would load it."""
    load: Any = PreTrainedTokenizerFast  # its constructor has no types
    loaded: PreTrainedTokenizerFast = load(
        tokenizer_object=tokenizer,
        chat_template=template,
        clean_up_tokenization_spaces=False,
        **names,
    )
    return loaded


def template_ids(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Mapping[str, Any]], **options: Any
) -> list[int]:
    """The ids that a tokenizer's own template and encoder give for a conversation."""
    apply: Any = tokenizer.apply_chat_template
    return list(apply([*messages], return_dict=False, **options))


def rendered(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Mapping[str, Any]]) -> str:
    """The text that a tokenizer's own template gives for a conversation."""
    apply: Any = tokenizer.apply_chat_template
    return str(apply([*messages], tokenize=False))


def id_of(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of a token of the vocabulary."""
    index: int = tokenizer.get_vocab()[token]
    return index


def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level tokenizers write bytes, and the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


def _trained_bytes() -> Tokenizer:
    """Byte-level BPE, a few hundred merges."""
    return Tokenizer.from_str(_train_bytes())


@cache
def _train_bytes() -> str:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(_WORDS, "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, min_frequency=2, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    return str(tokenizer.to_str())


@cache
def _trained_metaspace() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges; specials first, then bytes, as sentencepiece orders them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=300, min_frequency=2, show_progress=False)
    tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words = sorted(model["vocab"], key=model["vocab"].get)
    merges = [(left, right) for left, right in model["merges"]]
    return {token: index for index, token in enumerate([*first, *words])}, merges
