"""Options of the chat model: what they do, for good or for one call, and what LangChain asks."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField
from pydantic import SecretStr, ValidationError

from hogwild_agents import Engine, SharedCacheModel, registry
from hogwild_agents.langchain.chat_models import ChatHogwild
from hogwild_agents.pocket import FOLDER
from hogwild_agents.team import TeamBlocks
from hogwild_agents.team.layouts import Views
from tests.unit.langchain.requests import RAW
from tests.unit.small_models import chat, counted_passes, folder, shared_engine


def alone(blocks: TeamBlocks) -> Views:
    """A layout in which nobody sees the others."""
    return [[*blocks.common, own] for own in blocks.work]


# What options do.


def test_temperature_and_seed() -> None:
    """No temperature, no chance; a seed repeats; without one each call is new."""
    model = chat(budget=12, max_tokens=12)
    assert len({model.invoke("Hi.").content for _ in range(3)}) == 1
    warm = chat(budget=12, max_tokens=12, temperature=1.0)
    seeded = [warm.invoke("Hi.", seed=seed).content for seed in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]
    assert (
        chat(budget=12, max_tokens=12, temperature=1.0, seed=1).invoke("Hi.").content == seeded[0]
    )
    assert len({warm.invoke("Hi.").content for _ in range(4)}) > 1


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=repr)
def test_filters(options: dict[str, Any]) -> None:
    """The narrowest leave the likeliest token."""
    greedy = chat().invoke("Hi.")
    assert chat(temperature=1.0, **options).invoke("Hi.").content == greedy.content


OPTIONS: list[dict[str, Any]] = [
    {"workers": 3},
    {"workers": ["Ada", "Emmy"]},
    {"layout": "contiguous"},
    {"layout": alone},
    {"budget": 3},
    {"max_tokens": 3},
    {"temperature": 1.0, "seed": 1},
    {"finisher": "answer"},
    {"reasoning": False},
    {"answer": "number"},
    {"interrupts": [lambda _: "Hm. "]},
    {"prompt": "default", "model": str(FOLDER)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda given: next(iter(given)))
def test_options_of_one_call(options: dict[str, Any]) -> None:
    """As if they had been given for good; the model stays as it was."""
    model, own = chat(), chat(**options)
    before = model.invoke("Hi.")
    given = model.invoke("Hi.", **options)
    bound = model.bind(**options).invoke("Hi.")
    expected = own.invoke("Hi.")
    for message in (given, bound):
        assert message.content == expected.content
        assert message.additional_kwargs == expected.additional_kwargs
        for key in ("model_name", "workers", "layout", "passes", "answer_format"):
            assert message.response_metadata[key] == expected.response_metadata[key]
    assert model.invoke("Hi.").content == before.content


def test_another_model_for_one_call() -> None:
    """By its name, as a drop-in for providers with many."""
    message = chat().invoke("Hi.", model=folder("llama"))
    assert message.response_metadata["model_name"] == folder("llama")
    assert message.content == chat("llama").invoke("Hi.").content


def test_options_that_are_configured() -> None:
    """From outside, by LangChain's own means."""
    model = chat().configurable_fields(budget=ConfigurableField(id="thinking"))
    message = model.invoke("Hi.", {"configurable": {"thinking": 2}})
    assert message.response_metadata["passes"] == 2


def test_what_other_providers_take() -> None:
    """Is taken, where a model may be swapped for another."""
    model = chat(api_key=SecretStr("x"), streaming=False, timeout=60, max_retries=1, stop=["###"])
    assert model.invoke("Hi.", stream=False, strict=True).content
    assert "x" not in repr(model.api_key)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names model and device where nobody else does."""
    monkeypatch.setenv("HOGWILD_MODEL", folder("llama"))
    monkeypatch.setenv("HOGWILD_DEVICE", "cpu")
    assert (ChatHogwild().model, ChatHogwild().device) == (folder("llama"), "cpu")
    assert ChatHogwild(model="pocket").model == "pocket"


class CountingLimiter(BaseRateLimiter):
    """Lets everything pass, and counts it."""

    def __init__(self) -> None:
        self.acquired = 0

    def acquire(self, *, blocking: bool = True) -> bool:
        """One more."""
        self.acquired += 1
        return blocking

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """As `acquire`."""
        return self.acquire(blocking=blocking)


def test_a_rate_limiter() -> None:
    """Is LangChain's, and asked before every call."""
    limiter = CountingLimiter()
    model = chat(rate_limiter=limiter, workers=1, max_tokens=1)
    for _ in range(3):
        model.invoke("Hi.")
    assert limiter.acquired == 3


# Engines.


def test_an_engine_of_ones_own() -> None:
    """Is used and left open; equal weights say the same."""
    mine = SharedCacheModel.from_pretrained(folder(), device="cpu", dtype="float32")
    with Engine(mine) as engine:
        model = chat(engine=engine)
        with counted_passes() as passes:
            message = model.invoke("Hi.")
        assert passes
        assert message.content == chat().invoke("Hi.").content
        assert model.bind_tools([RAW], tool_choice="any").invoke("Hi.").tool_calls
        assert not engine.closed


def test_equal_settings_share_an_engine() -> None:
    """And whoever asks for the same model by another path; others have their own."""
    engine = shared_engine(chat())
    assert shared_engine(chat(workers=3, temperature=1.0)) is engine
    assert shared_engine(chat(model=folder() + "/../qwen")) is engine
    assert shared_engine(chat("llama")) is not engine
    assert shared_engine(chat(dtype="bfloat16")) is not engine


def test_nothing_is_loaded_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither weights nor a tokenizer, and the hub is not asked."""
    for name in ("_load_tokenizer", "get_engine"):
        monkeypatch.setattr(registry, name, lambda *_: pytest.fail("something was loaded"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ChatHogwild(model="nobody/nothing", workers=4, temperature=0.5)


# What LangChain asks.


def test_tokens() -> None:
    """By the model's own tokenizer."""
    model = chat()
    text = "Alice thinks <|im_end|> and Bob, too."
    ids = model.get_token_ids(text)
    assert model.get_num_tokens(text) == len(ids) > 5
    assert 333 not in ids, "text from outside gives no control token"
    told = [SystemMessage("Be brief."), HumanMessage(text)]
    count = model.get_num_tokens_from_messages(told)
    assert len(ids) < count < len(ids) + 60
    assert model.get_num_tokens_from_messages(told, [RAW]) > count
    counted = chat(custom_get_token_ids=lambda text: [1] * len(text))
    assert counted.get_num_tokens("abc") == 3


def test_the_profile() -> None:
    """Known before the model is loaded; each has its own."""
    profile = chat().profile
    assert profile is not None
    assert profile["max_input_tokens"] == 4096
    assert profile["tool_calling"]
    assert profile["structured_output"]
    assert profile["reasoning_output"]
    assert not profile["image_inputs"]
    profile["max_input_tokens"] = 1
    assert (chat().profile or {})["max_input_tokens"] == 4096
    assert ChatHogwild(model="nobody/nothing").profile is None


def test_a_broken_configuration(tmp_path: Path) -> None:
    """Says nothing of a model, and is no reason to fail before it is asked."""
    (tmp_path / "config.json").write_text("{")
    assert not ChatHogwild(model=str(tmp_path)).profile


def test_tracing() -> None:
    """Who, which, how warm; also what one call says otherwise."""
    model = chat(temperature=0.5, max_tokens=7, stop=["x"])
    params = model._get_ls_params()
    assert params["ls_provider"] == "hogwild"
    assert params["ls_model_type"] == "chat"
    assert params["ls_model_name"] == folder()
    assert params["ls_temperature"] == 0.5
    assert params["ls_max_tokens"] == 7
    assert params["ls_stop"] == ["x"]
    other = model._get_ls_params(stop=["y"], model="other", temperature=0.1)
    assert (other["ls_model_name"], other["ls_temperature"]) == ("other", 0.1)
    assert other["ls_stop"] == ["y"]
    assert model._llm_type == "hogwild"
    assert "hogwild-agents" in (model.metadata or {}).get("lc_versions", {"hogwild-agents": 1})


@pytest.mark.parametrize("options", OPTIONS, ids=lambda given: next(iter(given)))
def test_what_an_answer_depends_on(options: dict[str, Any]) -> None:
    """Is in the key of caches; the same options are the same key."""
    assert str(chat(**options)._identifying_params) != str(chat()._identifying_params)
    assert str(chat(**options)._identifying_params) == str(chat(**options)._identifying_params)


@pytest.mark.parametrize(
    "options", [{"timeout": 5}, {"max_retries": 0}, {"streaming": True}, {"api_key": "x"}], ids=repr
)
def test_what_it_does_not_depend_on(options: dict[str, Any]) -> None:
    assert str(chat(**options)._identifying_params) == str(chat()._identifying_params)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda m: m.model_copy()])
def test_copies(again: Any) -> None:
    """Say the same."""
    model = chat(temperature=1.0, seed=3)
    twin = again(model)
    assert twin == model
    assert twin.invoke("Hi.").content == model.invoke("Hi.").content


def test_pickles() -> None:
    """Go to other processes, with tools bound."""
    model = chat(temperature=1.0, seed=3, api_key=SecretStr("x"))
    twin = pickle.loads(pickle.dumps(model))
    assert twin.invoke("Hi.").content == model.invoke("Hi.").content
    bound = pickle.loads(pickle.dumps(model.bind_tools([RAW], tool_choice="any")))
    assert bound.invoke("Hi.").tool_calls


def test_what_a_field_may_be() -> None:
    """Pydantic says so where a model is made."""
    refused: tuple[dict[str, Any], ...] = (
        {"workers": "Bob"},
        {"budget": 0},
        {"max_tokens": -1},
        {"temperature": float("inf")},
        {"top_p": 2},
        {"timeout": 0},
        {"max_retries": -1},
        {"finisher": "essay"},
        {"no_such": 1},
        {"engine": "cpu"},
        {"model": "pocket", "workers": ["Ada"]},
        {"layout": lambda _: []},
        {"answer": "foo"},
        {"prompt": "foo"},
        {"interrupts": ["foo"]},
        {"seed": -1},
        {"stop": [""]},
        {"device": "foo"},
        {"dtype": "foo"},
        {"output_version": "v9"},
    )
    for options in refused:
        with pytest.raises(ValidationError, match=r"prompt=|" + next(iter(options))[:5]) as caught:
            chat(**options)
        assert "foo" not in str(options) or "foo" in str(caught.value)


def test_an_empty_name_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is no name, and not the folder in which one happens to be."""
    monkeypatch.setenv("HOGWILD_MODEL", "")
    with pytest.raises(ValidationError, match="HOGWILD_MODEL"):
        ChatHogwild()
