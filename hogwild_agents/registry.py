"""Models by name or folder: their teams, tokenizers and grammars, and one shared engine each."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import constants
from huggingface_hub.utils import logging

from hogwild_agents import pocket
from hogwild_agents.constrained.grammars import GrammarCompiler
from hogwild_agents.engine import Engine, SharedCacheModel
from hogwild_agents.engine.loading import choose_device, parse_dtype
from hogwild_agents.errors import InvalidRequestError, ModelLoadError
from hogwild_agents.hub import require_hub
from hogwild_agents.names import POCKET
from hogwild_agents.team import Team, TeamTokenizer
from hogwild_agents.team.config import DEFAULT_SAMPLING


def is_pocket(model: str) -> bool:
    """Whether a name or folder means the model that ships with the package."""
    return resolve_source(model) == resolve_source(POCKET)


def resolve_source(model: str) -> str:
    """The absolute path of a model's folder; a name on the hub stays as it is."""
    folder = pocket.FOLDER if model == POCKET else Path(model)
    return str(folder.resolve()) if folder.exists() else model


# Teams.


def team_defaults(model: str, workers: int | Sequence[str]) -> dict[str, Any]:
    """The arguments of `Team` that suit a model; `Team` has defaults for the others.

    Raises:
        InvalidTeamError: The model does not work with these workers.
    """
    return pocket.team_settings(workers) if is_pocket(model) else {"workers": workers}


def build_team(
    model: str,
    workers: int | Sequence[str] = 2,
    *,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    **options: Any,
) -> Team:
    """A team for a model. Whatever is None or left out gets the value that suits the model.

    Reads the model's tokenizer, not its weights.

    Args:
        model: Its name or folder.
        workers: How many, or their names.
        temperature: Replaces that of the model's sampling parameters, as do the four that follow.
        top_p: See `SamplingParams`.
        top_k: See `SamplingParams`.
        min_p: See `SamplingParams`.
        seed: See `SamplingParams`.
        options: Other arguments of `Team`.

    Raises:
        ModelLoadError: The model has no tokenizer.
        HubUnreachableError: The model is not on this machine, and the hub does not answer.
        InvalidRequestError: An option is not valid, or does not go with this model.
    """
    arguments = team_defaults(model, workers)
    arguments |= {name: value for name, value in options.items() if value is not None}
    sampling = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "seed": seed,
    }
    if changes := {name: value for name, value in sampling.items() if value is not None}:
        usual = arguments.get("sampling", DEFAULT_SAMPLING)
        arguments["sampling"] = replace(usual, **changes)
    return Team(get_tokenizer(model), **arguments)


# Tokenizers and grammars.


def get_tokenizer(model: str) -> TeamTokenizer:
    """A model's tokenizer, which is safe for text from outside; read once.

    Raises:
        ModelLoadError: The model has no tokenizer that can be read.
        HubUnreachableError: The model is not on this machine, and the hub does not answer.
    """
    return _load_tokenizer(resolve_source(model))


def get_compiler(model: str) -> GrammarCompiler:
    """The compiler of grammars for a model; made once.

    Raises:
        ModelLoadError: The model has no tokenizer that can be read.
        HubUnreachableError: The model is not on this machine, and the hub does not answer.
        GrammarError: No grammar can be made for its tokenizer.
    """
    return _make_compiler(resolve_source(model))


@lru_cache(maxsize=16)
def _load_tokenizer(source: str) -> TeamTokenizer:
    is_folder = Path(source).exists()
    if not is_folder:
        require_hub(source)
    from transformers import AutoTokenizer  # slow, and only needed here

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # the error tells of its retries
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        return TeamTokenizer(tokenizer, end_tokens=_end_tokens(source))
    except Exception as error:  # each broken file has an error type of its own
        offline = ", and HF_HUB_OFFLINE forbids asking the hub" if constants.HF_HUB_OFFLINE else ""
        where = "" if is_folder else f" (there is no such folder here{offline})"
        raise ModelLoadError(f"Cannot load a tokenizer from {source!r}{where}: {error}") from error
    finally:
        logging.set_verbosity(level)


@lru_cache(maxsize=16)
def _make_compiler(source: str) -> GrammarCompiler:
    return GrammarCompiler(_load_tokenizer(source))


def _end_tokens(source: str) -> list[int]:
    """Ids that end a turn by a model's generation settings; many models have none."""
    from transformers import GenerationConfig

    try:
        ids = GenerationConfig.from_pretrained(source).eos_token_id
    except OSError:
        return []
    return [ids] if isinstance(ids, int) else [*(ids or ())]


# Engines.


class EngineKey(NamedTuple):
    """Requests that agree in these share an engine."""

    source: str
    device: str
    dtype: str


_load_lock = threading.Lock()
_engines: dict[EngineKey, Engine] = {}
_parent_engines: list[Engine] = []
"""In a forked process: its parent's engines, which only the parent may free."""


def get_engine(model: str, device: str | None = None, dtype: str = "auto") -> Engine:
    """The engine of a model, started on first use and shared from then on.

    Blocks while the model is loaded. An engine that failed or was closed is replaced by a new one.

    Args:
        model: Its name or folder.
        device: `cpu`, `cuda`, `cuda:1`, ...; a CUDA card if there is one and this is None.
        dtype: Of the weights, or `auto` for the checkpoint's own.

    Raises:
        InvalidRequestError: There is no such device or dtype.
        ModelLoadError: There is no such model.
        UnsupportedModelError: The model cannot run on a shared cache.
    """
    key = _key(model, device, dtype)
    engine = _engines.get(key)
    if engine is not None and not engine.closed:
        return engine
    with _load_lock:
        engine = _engines.get(key)
        if engine is None or engine.closed:
            _engines.pop(key, None)  # frees the old weights: both may not fit into memory
            try:
                choose_device(key.device)
                parse_dtype(dtype)
            except ModelLoadError as error:  # the arguments are wrong, not the model
                raise InvalidRequestError(str(error)) from error
            shared = SharedCacheModel.from_pretrained(key.source, device=key.device, dtype=dtype)
            engine = _engines[key] = Engine(shared)
        return engine


def unload_engine(model: str, device: str | None = None, dtype: str = "auto") -> None:
    """Closes the shared engine of a model, if there is one, and frees its memory."""
    with _load_lock:
        engine = _engines.pop(_key(model, device, dtype), None)
    if engine is None:
        return
    engine.close()
    del engine
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def parse_device(device: str) -> torch.device:
    """The device with a name, whether or not this machine has it.

    Raises:
        InvalidRequestError: No device has this name.
    """
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise InvalidRequestError(
            f"Unknown device {device!r}: use cpu, cuda, or one of several cards as in cuda:1."
        ) from error


def _key(model: str, device: str | None, dtype: str) -> EngineKey:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return EngineKey(resolve_source(model), device, dtype)


def _after_fork() -> None:
    """A forked process has no engine threads, so it loads models again."""
    global _load_lock  # a thread of the parent may have held it
    _load_lock = threading.Lock()
    _parent_engines.extend(_engines.values())
    _engines.clear()


if hasattr(os, "register_at_fork"):  # runs after the hook of engine.py
    os.register_at_fork(after_in_child=_after_fork)
