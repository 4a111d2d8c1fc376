"""Models by name: where they lie, how a team of them is set up, and one engine for each, shared."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.utils import logging
from transformers import AutoTokenizer, GenerationConfig

from hogwild_agents import pocket
from hogwild_agents.engine import Engine, ModelLoadError, SharedCacheModel
from hogwild_agents.grammars import Compiler
from hogwild_agents.team import TeamTokenizer

POCKET = "pocket"
"""The name of the model that ships inside."""


class EngineKey(NamedTuple):
    """What engines are shared by: where the model lies, the device, and the type of the weights."""

    source: str
    device: str
    dtype: str


def is_pocket(model: str) -> bool:
    """Whether this is the model that ships inside, by its name or its folder."""
    return source_of(model) == source_of(POCKET)


def source_of(model: str) -> str:
    """Where a model lies: its folder's whole path, or a name on the hub."""
    folder = pocket.FOLDER if model == POCKET else Path(model)
    return str(folder.resolve()) if folder.exists() else model


def settings_of(model: str, workers: int | Sequence[str]) -> dict[str, Any]:
    """Arguments of `Team` that suit a model.

    Raises:
        InvalidTeamError: The model cannot be such a team.
    """
    return pocket.team_settings(workers) if is_pocket(model) else {"workers": workers}


def tokenizer_of(model: str) -> TeamTokenizer:
    """A model's tokenizer, safe for text from outside; read once.

    Raises:
        ModelLoadError: There is none.
    """
    return _tokenizer_from(source_of(model))


def compiler_of(model: str) -> Compiler:
    """What makes grammars for a model; made once.

    Raises:
        ModelLoadError: There is no tokenizer.
        GrammarError: It is none that grammars can be made for.
    """
    return _compiler_from(source_of(model))


@lru_cache(maxsize=16)
def _tokenizer_from(source: str) -> TeamTokenizer:
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # of its retries the error tells
    try:
        return TeamTokenizer(AutoTokenizer.from_pretrained(source), end_tokens=_ends_of(source))
    except Exception as error:  # each broken file has an error type of its own
        nothing = "" if Path(source).exists() else " (there is no such folder here)"
        raise ModelLoadError(
            f"Cannot load a tokenizer from {source!r}{nothing}: {error}"
        ) from error
    finally:
        logging.set_verbosity(level)


@lru_cache(maxsize=16)
def _compiler_from(source: str) -> Compiler:
    return Compiler(_tokenizer_from(source))


def _ends_of(source: str) -> list[int]:
    """What a model's generation settings say that ends a turn; many models have no such file."""
    try:
        ends = GenerationConfig.from_pretrained(source).eos_token_id
    except OSError:
        return []
    return [ends] if isinstance(ends, int) else [*(ends or ())]


_loading = threading.Lock()
_engines: dict[EngineKey, Engine] = {}


def engine_of(model: str, device: str | None = None, dtype: str = "auto") -> Engine:
    """The engine for a model, started on first use and shared by all who ask for the same.

    Blocks while the model is loaded; one that has broken down or was closed is started anew.

    Raises:
        ModelLoadError: There is no such model.
        UnsupportedModelError: It cannot run on a shared cache.
    """
    source = source_of(model)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    key = EngineKey(source, device, dtype)
    engine = _engines.get(key)
    if engine is not None and not engine.closed:
        return engine
    with _loading:
        engine = _engines.get(key)
        if engine is None or engine.closed:
            _engines.pop(key, None)  # two copies of the weights may be too much
            shared = SharedCacheModel.from_pretrained(source, device=device, dtype=dtype)
            engine = _engines[key] = Engine(shared)
        return engine
