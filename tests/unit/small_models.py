"""Small random models in folders, and chat models of them with short answers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from hogwild_agents import Engine, SharedCacheModel
from hogwild_agents.engine.attention.interface import Row
from hogwild_agents.langchain.chat_models import ChatHogwild
from hogwild_agents.registry import get_engine
from tests.unit.engine.families import Family, build
from tests.unit.team import tokenizers as small
from tests.unit.team import tool_formats
from tests.unit.team.scripted import TINY
from tests.unit.team.tool_formats import LLAMA, QWEN

torch.set_num_threads(1)

WAIT = 30.0
"""Seconds after which a test fails if something that should happen at once does not."""

_NO_THOUGHTS = """\
{%- if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}"""
"""The end of Qwen3's template."""

_FOLDERS = tempfile.TemporaryDirectory(prefix="hogwild-tests-")


def _tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a model in `folder`."""
    if name in ("mistral", "deepseek", "xml"):
        return tool_formats.own(name)
    tokenizer = small.llama3_like() if name == "llama" else small.byte_level()
    if name in ("qwen", "short"):
        tokenizer.chat_template = QWEN
    elif name == "thinker":
        tokenizer.chat_template = QWEN + _NO_THOUGHTS
    elif name == "llama":
        tokenizer.chat_template = LLAMA
    elif name == "bare":
        tokenizer.chat_template = None
    return tokenizer


@cache
def folder(name: str = "qwen") -> str:
    """The folder of a random model with its tokenizer.

    Args:
        name: `qwen` knows tools but has no thoughts; `llama` has another tool format; `thinker` has
            thoughts and tools; `bare` has no template; `short` has a short context; `mistral`,
            `deepseek` and `xml` have further tool formats.
    """
    path = Path(_FOLDERS.name) / name
    tokenizer = _tokenizer(name)
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    length = {"max_position_embeddings": 512} if name == "short" else {}
    family = Family(name, TINY.model_type, {**TINY.config, **ids, **length})
    build(family).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def chat(name: str = "qwen", **options: Any) -> ChatHogwild:
    """A team of a random model with short answers."""
    defaults: dict[str, Any] = {
        "model": folder(name),
        "prompt": None,
        "budget": 6,
        "max_tokens": 8,
        "temperature": 0,
        "device": "cpu",
        "dtype": "float32",
    }
    return ChatHogwild(**(defaults | options))


def shared_engine(model: ChatHogwild) -> Engine:
    """The engine of a chat model."""
    return get_engine(model.model, model.device, model.dtype)


def soon(condition: Callable[[], bool], seconds: float = WAIT) -> bool:
    """Waits until `condition` is true; returns whether it became true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True


@contextmanager
def counted_passes() -> Iterator[list[int]]:
    """Records the number of rows of each forward pass of any model inside the `with` block."""
    passes: list[int] = []
    run = SharedCacheModel.run

    def noted(self: SharedCacheModel, rows: Sequence[Row]) -> Tensor:
        passes.append(len(rows))
        return run(self, rows)

    with mock.patch.object(SharedCacheModel, "run", noted):
        yield passes
