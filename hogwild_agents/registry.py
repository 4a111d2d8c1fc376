"""Models by name: where they lie, how a team of them is set up, and one engine for each, shared."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import logging
from transformers import AutoTokenizer, GenerationConfig

from hogwild_agents import pocket
from hogwild_agents.constrained.grammars import GrammarCompiler
from hogwild_agents.engine import Engine, SharedCacheModel
from hogwild_agents.engine.loading import choose_device, parse_dtype
from hogwild_agents.errors import HubUnreachableError, InvalidRequestError, ModelLoadError
from hogwild_agents.team import TeamTokenizer

POCKET = "pocket"
"""The name of the model that ships inside."""

HUB_SECONDS = 10
"""How long the hub may take to say whether it has a model."""


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
        HubUnreachableError: There may be one on the hub.
    """
    return _tokenizer_from(source_of(model))


def compiler_of(model: str) -> GrammarCompiler:
    """What makes grammars for a model; made once.

    Raises:
        ModelLoadError: There is no tokenizer.
        GrammarError: It is none that grammars can be made for.
    """
    return _compiler_from(source_of(model))


@lru_cache(maxsize=16)
def _tokenizer_from(source: str) -> TeamTokenizer:
    if not Path(source).exists():
        _ask_hub(source)
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # of its retries the error tells
    try:
        return TeamTokenizer(AutoTokenizer.from_pretrained(source), end_tokens=_ends_of(source))
    except Exception as error:  # each broken file has an error type of its own
        unasked = ", and HF_HUB_OFFLINE forbids to ask the hub" if constants.HF_HUB_OFFLINE else ""
        nothing = "" if Path(source).exists() else f" (there is no such folder here{unasked})"
        raise ModelLoadError(
            f"Cannot load a tokenizer from {source!r}{nothing}: {error}"
        ) from error
    finally:
        logging.set_verbosity(level)


def _ask_hub(name: str) -> None:
    """Finds out with one question whether the hub can be reached.

    Transformers would ask for each file, and each time again and again: that takes most of a
    minute. What the hub answers is left to the loaders, whose errors say more.

    Raises:
        HubUnreachableError: It gave no answer, and no file of the model is on this machine.
    """
    try:
        if try_to_load_from_cache(name, "config.json") is None:
            get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=HUB_SECONDS)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled):
        return
    except Exception as error:  # the hub's client has changed its errors' library before
        raise HubUnreachableError(
            f"The model {name!r} is not on this machine, and {constants.ENDPOINT} cannot be asked "
            f"for it ({error}): check the network, or give a folder."
        ) from error


@lru_cache(maxsize=16)
def _compiler_from(source: str) -> GrammarCompiler:
    return GrammarCompiler(_tokenizer_from(source))


def _ends_of(source: str) -> list[int]:
    """What a model's generation settings say that ends a turn; many models have no such file."""
    try:
        ends = GenerationConfig.from_pretrained(source).eos_token_id
    except OSError:
        return []
    return [ends] if isinstance(ends, int) else [*(ends or ())]


_loading = threading.Lock()
_engines: dict[EngineKey, Engine] = {}
_of_parent: list[Engine] = []
"""In a forked process: engines that are not its own to free, as a GPU knows their parent only."""


def engine_of(model: str, device: str | None = None, dtype: str = "auto") -> Engine:
    """The engine for a model, started on first use and shared by all who ask for the same.

    Blocks while the model is loaded; one that has broken down or was closed is started anew.

    Raises:
        InvalidRequestError: There is no such device, or type of weights.
        ModelLoadError: There is no such model.
        UnsupportedModelError: It cannot run on a shared cache.
    """
    key = _key(model, device, dtype)
    engine = _engines.get(key)
    if engine is not None and not engine.closed:
        return engine
    with _loading:
        engine = _engines.get(key)
        if engine is None or engine.closed:
            _engines.pop(key, None)  # two copies of the weights may be too much
            try:
                choose_device(key.device)
                parse_dtype(dtype)
            except ModelLoadError as error:  # this is no fault of the model's
                raise InvalidRequestError(str(error)) from error
            shared = SharedCacheModel.from_pretrained(key.source, device=key.device, dtype=dtype)
            engine = _engines[key] = Engine(shared)
        return engine


def unload_engine(model: str, device: str | None = None, dtype: str = "auto") -> None:
    """Closes the shared engine of a model, if there is one, and gives its memory back."""
    with _loading:
        engine = _engines.pop(_key(model, device, dtype), None)
    if engine is None:
        return
    engine.close()
    del engine
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def parse_device(device: str) -> torch.device:
    """The device meant, which may be missing here.

    Raises:
        InvalidRequestError: No device is called so.
    """
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise InvalidRequestError(
            f"Unknown device {device!r}: use cpu, cuda, or one of several cards as in cuda:1."
        ) from error


def _key(model: str, device: str | None, dtype: str) -> EngineKey:
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return EngineKey(source_of(model), device, dtype)


def _after_fork() -> None:
    """In a forked process: it has no engine's thread, so it loads models anew."""
    global _loading  # another thread, which stayed in the parent, may hold it
    _loading = threading.Lock()
    _of_parent.extend(_engines.values())
    _engines.clear()


if hasattr(os, "register_at_fork"):  # after the engines' own, which makes them safe to drop
    os.register_at_fork(after_in_child=_after_fork)
