"""Models by name or folder: teams, tokenizers, one shared engine each, and what is no model."""

from __future__ import annotations

import gc
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import logging
from langchain_core.exceptions import ModelConnectionError, ModelNotFoundError

from hogwild_agents import Engine, SharedCacheModel, Team, registry
from hogwild_agents.engine import SamplingParams
from hogwild_agents.errors import (
    HubUnreachableError,
    InvalidRequestError,
    InvalidTeamError,
    ModelLoadError,
    UnsupportedModelError,
)
from hogwild_agents.langchain import errors as langchain_errors
from hogwild_agents.names import POCKET
from hogwild_agents.pocket import FOLDER
from hogwild_agents.registry import (
    build_team,
    get_compiler,
    get_engine,
    get_tokenizer,
    is_pocket,
    resolve_source,
    team_defaults,
    unload_engine,
)
from tests.unit.engine.families import Family, build
from tests.unit.small_models import chat, folder


@pytest.fixture
def own_engines() -> Iterator[dict[Any, Any]]:
    """No engine but those of one test, which are closed."""
    with mock.patch.dict(registry._engines, clear=True) as found:
        yield found
        for engine in found.values():
            engine.close()


# Engines.


def test_equal_settings_share_one(own_engines: dict[Any, Any], tmp_path: Path) -> None:
    """By whatever path; another type of weights or another model has its own."""
    engine = get_engine(folder(), "cpu", "float32")
    link = tmp_path / "link"
    link.symlink_to(folder())
    for same in (folder(), folder() + "/", f"{folder()}/../qwen", str(link)):
        assert get_engine(same, "cpu", "float32") is engine
    here = Path.cwd()
    os.chdir(Path(folder()).parent)
    try:
        assert get_engine("qwen", "cpu", "float32") is engine
    finally:
        os.chdir(here)
    assert get_engine(folder(), "cpu", "bfloat16") is not engine
    assert get_engine(folder("llama"), "cpu", "float32") is not engine
    assert len(own_engines) == 3


@pytest.mark.usefixtures("own_engines")
def test_the_pocket_model_has_two_names() -> None:
    """Its own, and its folder's."""
    assert get_engine(POCKET) is get_engine(str(FOLDER))


@pytest.mark.usefixtures("own_engines")
def test_one_that_was_closed_is_started_anew() -> None:
    """And works."""
    first = get_engine(folder(), "cpu", "float32")
    chat().invoke("Hi.")
    first.close()
    second = get_engine(folder(), "cpu", "float32")
    assert second is not first
    assert not second.closed
    chat().invoke("Hi.")


@pytest.mark.usefixtures("own_engines")
def test_one_that_broke_down_is_started_anew() -> None:
    """As one whose thread has died."""
    first = get_engine(folder(), "cpu", "float32")
    with mock.patch.object(first._loop.scheduler, "advance", side_effect=SystemExit("dead")):
        with pytest.raises(Exception, match="dead"):
            chat(max_retries=0).invoke("Hi.")
        assert first.closed
    chat().invoke("Hi.")
    assert get_engine(folder(), "cpu", "float32") is not first


@pytest.mark.usefixtures("own_engines")
def test_two_models_asked_for_at_once() -> None:
    """Both are there in the end, whoever was first."""
    asked = ("qwen", "llama", "qwen", "llama")
    with ThreadPoolExecutor(len(asked)) as threads:
        found = [*threads.map(lambda name: get_engine(folder(name), "cpu", "float32"), asked)]
    assert found[0] is found[2]
    assert found[1] is found[3]
    assert found[0] is not found[1]
    assert not any(engine.closed for engine in found)


def test_a_failed_load_leaves_nothing(own_engines: dict[Any, Any]) -> None:
    """The next one tries again."""
    with (
        mock.patch.object(
            SharedCacheModel, "from_pretrained", side_effect=ModelLoadError("no network")
        ),
        pytest.raises(ModelLoadError, match="no network"),
    ):
        get_engine(folder(), "cpu", "float32")
    assert own_engines == {}
    assert not get_engine(folder(), "cpu", "float32").closed


@pytest.mark.usefixtures("own_engines")
def test_what_is_no_model(tmp_path: Path) -> None:
    """No folder, no name, no device, no type of weights, or none that can run."""
    for model in ("/no/such/folder", "no/such-name", str(tmp_path)):
        with pytest.raises(ModelLoadError, match=model):
            get_engine(model)
    with pytest.raises(InvalidRequestError, match="nonsense"):
        get_engine(folder(), "nonsense")
    with pytest.raises(InvalidRequestError, match="nonsense"):
        get_engine(folder(), "cpu", "nonsense")
    build(Family("gpt2", "gpt2", {"vocab_size": 512})).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError):
        get_engine(str(tmp_path))


def test_forgotten(own_engines: dict[Any, Any]) -> None:
    """Closed, and its memory given back; others stay, and the next who asks has a new one."""
    other = get_engine(folder("llama"), "cpu", "float32")
    loop = get_engine(folder(), "cpu", "float32")._loop
    model = weakref.ref(loop.scheduler.model)
    unload_engine(folder(), "cpu", "float32")
    assert loop.closed
    assert not other.closed
    assert list(own_engines.values()) == [other]
    del loop
    gc.collect()
    assert model() is None
    unload_engine(folder(), "cpu", "float32")
    chat().invoke("Hi.")


def test_a_chat_model_unloads(own_engines: dict[Any, Any]) -> None:
    """The engine that it shares, and not one of its owner's."""
    model = chat()
    model.invoke("Hi.")
    chat(temperature=1).unload()
    assert own_engines == {}
    model.invoke("Hi.")
    with Engine(SharedCacheModel.from_pretrained(folder())) as engine:
        chat(engine=engine).unload()
        assert not engine.closed


# Tokenizers.


def test_a_tokenizer() -> None:
    """Is read once, and has a compiler that is made once."""
    assert get_tokenizer(folder()) is get_tokenizer(folder())
    assert get_compiler(folder()) is get_compiler(folder())
    assert get_tokenizer(folder()).tool_call_format is not None


def test_what_ends_a_turn(tmp_path: Path) -> None:
    """By the tokenizer, and by the model's generation settings, one or many."""
    for file in Path(folder()).iterdir():
        shutil.copy(file, tmp_path)
    settings = tmp_path / "generation_config.json"
    for given, more in ((7, {7}), ([7, 8], {7, 8}), (None, set())):
        registry._load_tokenizer.cache_clear()
        settings.write_text(json.dumps({"eos_token_id": given}))
        ends = get_tokenizer(str(tmp_path)).ends
        assert more <= ends
        assert get_tokenizer(folder()).plain.eos_token_id in ends
    registry._load_tokenizer.cache_clear()
    settings.unlink()
    assert get_tokenizer(str(tmp_path)).ends


@pytest.mark.parametrize("model", ["/no/such/folder", "no/such-name", "no such name"])
def test_no_tokenizer(model: str) -> None:
    """Says where it was looked for; the hub's own logging is left as it was."""
    before = logging.get_verbosity()
    with pytest.raises(ModelLoadError, match=model) as caught:
        get_tokenizer(model)
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
    monkeypatch.setattr("hogwild_agents.hub.get_hf_file_metadata", hub)
    with pytest.raises(HubUnreachableError, match=r"'no/such-name'.*not known.*folder"):
        get_tokenizer("no/such-name")
    assert hub.asked == 1
    with pytest.raises(langchain_errors.HubUnreachableError) as caught:
        chat(model="no/such-name").invoke("Hi.")
    assert isinstance(caught.value, ModelConnectionError)
    assert not isinstance(caught.value, ModelNotFoundError)
    assert hub.asked == 2


@pytest.mark.parametrize(
    "error", [OfflineModeIsEnabled("off"), HFValidationError("no name")], ids=repr
)
def test_what_the_hub_knows(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Is told by who loads the model."""
    monkeypatch.setattr("hogwild_agents.hub.get_hf_file_metadata", Hub(error))
    with pytest.raises(ModelLoadError, match="no/such-name"):
        get_tokenizer("no/such-name")


def test_a_folder_is_not_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a model that is on this machine already."""
    hub = Hub(OSError("no network"))
    monkeypatch.setattr("hogwild_agents.hub.get_hf_file_metadata", hub)
    monkeypatch.setattr("hogwild_agents.hub.try_to_load_from_cache", lambda *_: "config.json")
    assert chat().get_num_tokens("Hi.")
    with pytest.raises(ModelLoadError):
        get_tokenizer("no/such-name")
    assert hub.asked == 0


def test_a_broken_tokenizer(tmp_path: Path) -> None:
    """Whatever error it has."""
    for file in Path(folder()).iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelLoadError):
        get_tokenizer(str(tmp_path))


# Names and settings.


def test_the_pocket_model() -> None:
    """By its name or its folder; its settings are its own."""
    assert is_pocket(POCKET)
    assert is_pocket(str(FOLDER))
    assert not is_pocket(folder())
    assert not is_pocket("Qwen/Qwen3-8B")
    assert resolve_source(POCKET) == str(FOLDER)
    assert resolve_source("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
    assert team_defaults(str(FOLDER), 3)["finisher"] == "answer"
    assert team_defaults(folder(), ["Ada"]) == {"workers": ["Ada"]}
    with pytest.raises(InvalidTeamError):
        team_defaults(POCKET, 5)


def test_a_team_of_the_pocket_model() -> None:
    """It has the model's settings, but for what was chosen; None means not chosen."""
    team = build_team(POCKET, 3, layout=None, budget=9, temperature=None, seed=5)
    assert team.workers == ("Alice", "Bob", "Carol")
    assert (team.finisher, team.budget, team.layout.name) == ("answer", 9, "combined")
    assert team.sampling == SamplingParams(temperature=0, seed=5)
    assert team.tokenizer is get_tokenizer(POCKET)


def test_a_team_of_another_model() -> None:
    """It has the defaults of `Team`, and any sampling parameter can be replaced."""
    usual = Team(get_tokenizer(folder()))
    team = build_team(folder(), interrupts=[], top_p=0.5, top_k=7, min_p=0.1)
    assert (team.workers, team.finisher, team.budget) == (
        usual.workers,
        usual.finisher,
        usual.budget,
    )
    assert list(team.interrupts) == []
    assert team.sampling == replace(usual.sampling, top_p=0.5, top_k=7, min_p=0.1)
    sampling = SamplingParams(temperature=0.3, top_k=4)
    team = build_team(folder(), sampling=sampling, seed=2)
    assert team.sampling == replace(sampling, seed=2)


@pytest.mark.parametrize(
    "options", [{"workers": 9}, {"layout": "nonsense"}, {"temperature": -1}, {"top_p": 2}], ids=str
)
def test_a_team_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        build_team(folder(), **options)
