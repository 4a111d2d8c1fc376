"""Models by name: one engine for each, shared; what they are set up with; what is no model."""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import logging
from langchain_core.exceptions import ModelConnectionError, ModelNotFoundError

from hogwild_agents import Engine, SharedCacheModel
from hogwild_agents import registry as engines
from hogwild_agents.errors import InvalidTeamError, ModelLoadError, UnsupportedModelError
from hogwild_agents.langchain.errors import HubUnreachableError, InvalidRequestError
from hogwild_agents.langchain.profiles import profile_of
from hogwild_agents.pocket import FOLDER
from hogwild_agents.registry import (
    POCKET,
    compiler_of,
    engine_of,
    is_pocket,
    settings_of,
    source_of,
    tokenizer_of,
    unload_engine,
)
from tests.unit.engine.families import Family, build
from tests.unit.small_models import chat, folder


@pytest.fixture
def own_engines() -> Iterator[dict[Any, Any]]:
    """No engine but those of one test, which are closed."""
    with mock.patch.dict(engines._engines, clear=True) as found:
        yield found
        for engine in found.values():
            engine.close()


# Engines.


def test_equal_settings_share_one(own_engines: dict[Any, Any], tmp_path: Path) -> None:
    """By whatever path; another type of weights or another model has its own."""
    engine = engine_of(folder(), "cpu", "float32")
    link = tmp_path / "link"
    link.symlink_to(folder())
    for same in (folder(), folder() + "/", f"{folder()}/../qwen", str(link)):
        assert engine_of(same, "cpu", "float32") is engine
    here = Path.cwd()
    os.chdir(Path(folder()).parent)
    try:
        assert engine_of("qwen", "cpu", "float32") is engine
    finally:
        os.chdir(here)
    assert engine_of(folder(), "cpu", "bfloat16") is not engine
    assert engine_of(folder("llama"), "cpu", "float32") is not engine
    assert len(own_engines) == 3


@pytest.mark.usefixtures("own_engines")
def test_the_pocket_model_has_two_names() -> None:
    """Its own, and its folder's."""
    assert engine_of(POCKET) is engine_of(str(FOLDER))


@pytest.mark.usefixtures("own_engines")
def test_one_that_was_closed_is_started_anew() -> None:
    """And works."""
    first = engine_of(folder(), "cpu", "float32")
    assert chat().invoke("Hi.")
    first.close()
    second = engine_of(folder(), "cpu", "float32")
    assert second is not first
    assert not second.closed
    assert chat().invoke("Hi.")


@pytest.mark.usefixtures("own_engines")
def test_one_that_broke_down_is_started_anew() -> None:
    """As one whose thread has died."""
    first = engine_of(folder(), "cpu", "float32")
    with mock.patch.object(first._loop.scheduler, "advance", side_effect=SystemExit("dead")):
        with pytest.raises(Exception, match="dead"):
            chat(max_retries=0).invoke("Hi.")
        assert first.closed
    assert chat().invoke("Hi.")
    assert engine_of(folder(), "cpu", "float32") is not first


@pytest.mark.usefixtures("own_engines")
def test_two_models_asked_for_at_once() -> None:
    """Both are there in the end, whoever was first."""
    asked = ("qwen", "llama", "qwen", "llama")
    with ThreadPoolExecutor(len(asked)) as threads:
        found = [*threads.map(lambda name: engine_of(folder(name), "cpu", "float32"), asked)]
    assert found[0] is found[2]
    assert found[1] is found[3]
    assert found[0] is not found[1]
    assert not any(engine.closed for engine in found)


def test_a_failed_load_leaves_nothing(own_engines: dict[Any, Any]) -> None:
    """The next one tries again."""
    with (
        mock.patch.object(
            engines.SharedCacheModel, "from_pretrained", side_effect=ModelLoadError("no network")
        ),
        pytest.raises(ModelLoadError, match="no network"),
    ):
        engine_of(folder(), "cpu", "float32")
    assert own_engines == {}
    assert engine_of(folder(), "cpu", "float32")


@pytest.mark.usefixtures("own_engines")
def test_what_is_no_model(tmp_path: Path) -> None:
    """No folder, no name, no device, no type of weights, or none that can run."""
    for model in ("/no/such/folder", "no/such-name", str(tmp_path)):
        with pytest.raises(ModelLoadError, match=model):
            engine_of(model)
    with pytest.raises(InvalidRequestError, match="nonsense"):
        engine_of(folder(), "nonsense")
    with pytest.raises(InvalidRequestError, match="nonsense"):
        engine_of(folder(), "cpu", "nonsense")
    build(Family("gpt2", "gpt2", {"vocab_size": 512})).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError):
        engine_of(str(tmp_path))


def test_forgotten(own_engines: dict[Any, Any]) -> None:
    """Closed, and its memory given back; others stay, and the next who asks has a new one."""
    other = engine_of(folder("llama"), "cpu", "float32")
    loop = engine_of(folder(), "cpu", "float32")._loop
    model = weakref.ref(loop.scheduler.model)
    unload_engine(folder(), "cpu", "float32")
    assert loop.closed
    assert not other.closed
    assert list(own_engines.values()) == [other]
    del loop
    gc.collect()
    assert model() is None
    unload_engine(folder(), "cpu", "float32")
    assert chat().invoke("Hi.")


def test_a_chat_model_unloads(own_engines: dict[Any, Any]) -> None:
    """The engine that it shares, and not one of its owner's."""
    model = chat()
    model.invoke("Hi.")
    chat(temperature=1).unload()
    assert own_engines == {}
    assert model.invoke("Hi.")
    with Engine(SharedCacheModel.from_pretrained(folder())) as engine:
        chat(engine=engine).unload()
        assert not engine.closed


# Tokenizers.


def test_a_tokenizer() -> None:
    """Is read once, and has a compiler that is made once."""
    assert tokenizer_of(folder()) is tokenizer_of(folder())
    assert compiler_of(folder()) is compiler_of(folder())
    assert tokenizer_of(folder()).tool_call_format is not None


def test_what_ends_a_turn(tmp_path: Path) -> None:
    """By the tokenizer, and by the model's generation settings, one or many."""
    for file in Path(folder()).iterdir():
        shutil.copy(file, tmp_path)
    settings = tmp_path / "generation_config.json"
    for given, more in ((7, {7}), ([7, 8], {7, 8}), (None, set())):
        engines._tokenizer_from.cache_clear()
        settings.write_text(json.dumps({"eos_token_id": given}))
        ends = tokenizer_of(str(tmp_path)).ends
        assert more <= ends
        assert tokenizer_of(folder()).plain.eos_token_id in ends
    engines._tokenizer_from.cache_clear()
    settings.unlink()
    assert tokenizer_of(str(tmp_path)).ends


@pytest.mark.parametrize("model", ["/no/such/folder", "no/such-name", "no such name"])
def test_no_tokenizer(model: str) -> None:
    """Says where it was looked for; the hub's own logging is left as it was."""
    before = logging.get_verbosity()
    with pytest.raises(ModelLoadError, match=model) as caught:
        tokenizer_of(model)
    assert "no such folder" in str(caught.value)
    assert logging.get_verbosity() == before


class Hub:
    """As the hub's client: it answers with an error, and counts how often it is asked."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked = 0

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        raise self.error


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is another thing than a model that does not exist, and is asked once."""
    hub = Hub(OSError("Name or service not known"))
    monkeypatch.setattr(engines, "get_hf_file_metadata", hub)
    with pytest.raises(HubUnreachableError, match=r"'no/such-name'.*not known.*folder") as caught:
        chat(model="no/such-name").invoke("Hi.")
    assert isinstance(caught.value, ModelConnectionError)
    assert not isinstance(caught.value, ModelNotFoundError)
    assert hub.asked == 1


@pytest.mark.parametrize(
    "error", [OfflineModeIsEnabled("off"), HFValidationError("no name")], ids=repr
)
def test_what_the_hub_knows(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Is told by who loads the model."""
    monkeypatch.setattr(engines, "get_hf_file_metadata", Hub(error))
    with pytest.raises(ModelLoadError, match="no/such-name"):
        tokenizer_of("no/such-name")


def test_a_folder_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a model that is on this machine already."""
    hub = Hub(OSError("no network"))
    monkeypatch.setattr(engines, "get_hf_file_metadata", hub)
    monkeypatch.setattr(engines, "try_to_load_from_cache", lambda *_: "config.json")
    assert chat().get_num_tokens("Hi.")
    with pytest.raises(ModelLoadError):
        tokenizer_of("no/such-name")
    assert hub.asked == 0


def test_a_broken_tokenizer(tmp_path: Path) -> None:
    """Whatever error it has."""
    for file in Path(folder()).iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelLoadError):
        tokenizer_of(str(tmp_path))


# Names and settings.


def test_the_pocket_model() -> None:
    """By its name or its folder; its settings are its own."""
    assert is_pocket(POCKET)
    assert is_pocket(str(FOLDER))
    assert not is_pocket(folder())
    assert not is_pocket("Qwen/Qwen3-8B")
    assert source_of(POCKET) == str(FOLDER)
    assert source_of("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
    assert settings_of(str(FOLDER), 3)["finisher"] == "answer"
    assert settings_of(folder(), ["Ada"]) == {"workers": ["Ada"]}
    with pytest.raises(InvalidTeamError):
        settings_of(POCKET, 5)


def test_profiles(tmp_path: Path) -> None:
    """What a configuration says; nothing of a model that is not here."""
    assert profile_of("Qwen/Qwen3-8B") is None
    assert (profile_of(POCKET) or {})["max_input_tokens"] > 0
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"text_config": {"max_position_embeddings": 99}}))
    assert (profile_of(str(tmp_path)) or {})["max_input_tokens"] == 99
