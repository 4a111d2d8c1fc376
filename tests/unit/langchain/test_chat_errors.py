"""What cannot be, and what fails: typed errors, which are LangChain's too, before any work."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelTimeoutError,
)
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage

from hogwild_agents import Engine
from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain.errors import (
    AnswerTimeoutError,
    ContextLengthError,
    InvalidRequestError,
    ModelLoadError,
    SessionFailedError,
    UnsupportedModelError,
)
from hogwild_agents.langchain.runnables import CollaborationPrompt, RedundancyCheck
from tests.unit.engine.families import Family, build
from tests.unit.langchain.requests import FORMAT, RAW
from tests.unit.small_models import chat, counted_passes, folder, shared_engine, soon
from tests.unit.team.scripted import scripted


@pytest.fixture
def no_work() -> Iterator[None]:
    """Not one forward pass but those in which a model proves itself."""
    shared_engine(chat())
    with counted_passes() as passes:
        yield
    assert passes == []


def refused(
    kind: type[HogwildError], words: list[str], question: Any = "Hi.", **options: Any
) -> HogwildError:
    """Asserts that each way to call fails so, and that the message holds `words`."""

    async def streamed() -> list[Any]:
        return [piece async for piece in chat().astream(question, **options)]

    ways: list[Callable[[], Any]] = [
        lambda: chat().invoke(question, **options),
        lambda: list(chat().stream(question, **options)),
        lambda: asyncio.run(chat().ainvoke(question, **options)),
        lambda: asyncio.run(streamed()),
    ]
    for way in ways:
        with pytest.raises(kind) as caught:
            way()
        assert type(caught.value) is kind
        assert isinstance(caught.value, HogwildError)
        assert isinstance(caught.value, ModelError)
        for word in words:
            assert word in str(caught.value), str(caught.value)
    return caught.value


IMAGE = {"type": "image", "base64": "x", "mime_type": "image/png"}
AUDIO = {"type": "audio", "base64": "x", "mime_type": "audio/wav"}
DEEP = {"type": "object", "properties": {"a": {"type": "integer"}}, "if": {}, "then": {}}


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("", ["empty", "say what"]),
        (" \n", ["empty"]),
        ([], ["no message"]),
        ([HumanMessage([IMAGE])], ["Message 0", "'image'", "text only"]),
        ([HumanMessage("Hi."), HumanMessage([AUDIO])], ["Message 1", "'audio'"]),
        ([ChatMessage(content="Hi.", role="critic")], ["Message 0", "'critic'", "assistant"]),
    ],
    ids=str,
)
def test_messages(question: Any, words: list[str]) -> None:
    error = refused(InvalidRequestError, words, question)
    assert isinstance(error, ModelInvalidRequestError)
    assert isinstance(error, ValueError)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wokers": 3}, ["Unknown argument", "wokers", "temperature"]),
        ({"workers": 99}, ["99"]),
        ({"workers": ["Bob", "Bob"]}, ["Bob"]),
        ({"layout": "circle"}, ["circle", "combined"]),
        ({"temperature": "hot"}, ["temperature"]),
        ({"top_p": 0}, ["top_p"]),
        ({"stop": "END"}, ["stop"]),
        ({"stop": ""}, ["stop=''"]),
        ({"model": " "}, ["model=' '", "HOGWILD_MODEL"]),
        ({"device": "foo"}, ["Unknown device 'foo'", "cpu"]),
        ({"dtype": "foo"}, ["Unknown dtype 'foo'", "bfloat16"]),
        ({"interrupts": RedundancyCheck(every=5)}, ["interrupts=[RedundancyCheck(every=5)]"]),
        ({"output_version": "v9"}, ["output_version"]),
        ({"engine": None}, ["engine"]),
        ({"answer": "essay"}, ["essay", "boxed"]),
        ({"prompt": "Be nice."}, ["prompt", "CollaborationPrompt"]),
        ({"interrupts": [5]}, ["5"]),
        ({"tools": [RAW], "finisher": "answer"}, ["finisher='answer'", "finisher='reply'"]),
        ({"response_format": FORMAT, "finisher": "answer"}, ["finisher='answer'"]),
        ({"tools": [RAW, RAW]}, ["Two tools", "power"]),
        ({"tools": [RAW], "tool_choice": "sub"}, ["tool_choice='sub'", "power"]),
        ({"tool_choice": "any"}, ["no tools"]),
        ({"response_format": "json"}, ["response_format", "json_schema"]),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": DEEP}}},
            ["No grammar", "if"],
        ),
        ({"tools": [{"name": "f", "description": "", "parameters": DEEP}]}, ["No grammar", "if"]),
        ({"tools": [42]}, ["42"]),
    ],
    ids=lambda given: json.dumps(given, default=str)[:60],
)
def test_options(options: dict[str, Any], words: list[str]) -> None:
    """Each has words that name it, and what to do."""
    error = refused(InvalidRequestError, words, **options)
    assert isinstance(error, ModelInvalidRequestError)


@pytest.mark.usefixtures("no_work")
def test_options_that_are_refused_early() -> None:
    """Where they are bound already."""
    model: Any = chat()
    binds: tuple[Callable[[], Any], ...] = (
        lambda: model.bind_tools([RAW], tool_choice="sub"),
        lambda: model.bind_tools([], tool_choice="any"),
        lambda: model.bind_tools([42]),
        lambda: model.with_structured_output("Ticket"),
        lambda: model.with_structured_output(FORMAT, method="yaml"),
    )
    for bind in binds:
        with pytest.raises(InvalidRequestError):
            bind()


@pytest.mark.usefixtures("no_work")
def test_a_prompt_for_other_workers() -> None:
    """Who is told of three cannot be two."""
    chain = CollaborationPrompt(workers=3) | chat(workers=2)
    with pytest.raises(InvalidRequestError, match="workers"):
        chain.invoke("Hi.")


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("length", [4096, 3900])
def test_a_prompt_that_is_too_long(length: int) -> None:
    """By the figures, before any work."""
    words = ["4,096", "horten", ","]
    error = refused(ContextLengthError, words, "x " * (length // 2), max_tokens=1000)
    assert isinstance(error, ContextOverflowError)
    assert "max_tokens" in str(error)
    for word in ("reply_tokens", "max_length", "from_pretrained"):
        assert word not in str(error)


# Models.


@pytest.mark.parametrize(
    "model", ["no/such-model", "/no/such/folder", "no such name", "gpt2"], ids=str
)
def test_a_model_that_does_not_exist(model: str) -> None:
    error = refused(ModelLoadError, [model], model=model)
    assert isinstance(error, ModelNotFoundError)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there() -> None:
    """Is no fault of the model's, for which another one might stand in."""
    error = refused(InvalidRequestError, ["cuda"], device="cuda")
    assert not isinstance(error, ModelNotFoundError)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    """And one with weights that are broken."""
    for file in Path(folder()).iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, tmp_path)
    refused(ModelLoadError, [str(tmp_path)], model=str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    refused(ModelLoadError, [str(tmp_path)], model=str(tmp_path))


def test_a_model_that_the_engine_refuses(tmp_path: Path) -> None:
    """With the engine's reason."""
    for file in Path(folder()).iterdir():
        shutil.copy(file, tmp_path)
    build(Family("gpt2", "gpt2", {"vocab_size": 512})).save_pretrained(tmp_path)
    error = refused(UnsupportedModelError, ["cannot run on a shared cache"], model=str(tmp_path))
    assert isinstance(error, ModelInvalidRequestError)


def test_a_closed_engine() -> None:
    """One's own is not replaced, and no time is spent on it."""
    engine = Engine(scripted())
    engine.close()
    with pytest.raises(InvalidRequestError, match="engine"):  # which is not tried again
        chat(engine=engine, max_retries=9).invoke("Hi.")


# While it works.


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream", "batch"])
def test_a_timeout(way: str) -> None:
    """Stops the session, says when, and keeps what was reached."""

    async def streamed() -> list[Any]:
        return [piece async for piece in model.astream("Hi.")]

    model = chat(budget=3000, max_tokens=3000, timeout=0.1)
    engine = shared_engine(model)
    ways: dict[str, Any] = {
        "invoke": lambda: model.invoke("Hi."),
        "stream": lambda: list(model.stream("Hi.")),
        "ainvoke": lambda: asyncio.run(model.ainvoke("Hi.")),
        "astream": lambda: asyncio.run(streamed()),
        "batch": lambda: model.batch(["Hi."] * 2),
    }
    with pytest.raises(AnswerTimeoutError, match=r"timeout=0\.1") as caught:
        ways[way]()
    assert isinstance(caught.value, ModelTimeoutError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.partial is not None
    assert caught.value.partial.passes > 0
    assert soon(lambda: engine._loop.idle, 2)
    assert chat(timeout=60).invoke("Hi.").content


def test_a_timeout_leaves_no_timer_behind() -> None:
    """When the answer came in time."""
    chat(timeout=60).invoke("Hi.")
    assert soon(lambda: not any(isinstance(t, threading.Timer) for t in threading.enumerate()))


def test_an_engine_closed_underneath() -> None:
    """The call under way fails, and says so; the next one has a new engine."""
    model = chat("llama", budget=3000, max_tokens=3000, max_retries=0)
    engine = shared_engine(model)
    stream = model.stream("Hi.")
    next(stream)
    engine.close()
    with pytest.raises(SessionFailedError, match="closed"):
        list(stream)
    assert chat("llama").invoke("Hi.").content
    assert shared_engine(model) is not engine


class Once:
    """Breaks down in the first so many passes."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, _: Any) -> None:
        self.left -= 1
        if self.left >= 0:
            raise ArithmeticError("the device is on fire")


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke"])
def test_tried_again(way: str) -> None:
    """What failed before it began to think, as often as is allowed."""
    model = scripted()
    with Engine(model) as engine:
        team = chat(engine=engine, max_retries=2)
        ways: dict[str, Any] = {
            "invoke": lambda: team.invoke("Hi."),
            "stream": lambda: list(team.stream("Hi.")),
            "ainvoke": lambda: asyncio.run(team.ainvoke("Hi.")),
        }
        model.before = Once(2)
        assert ways[way]()
        model.before = Once(3)
        with pytest.raises(SessionFailedError, match="on fire"):
            ways[way]()


def test_errors_reach_fallbacks() -> None:
    """As LangChain's own do."""
    backup = chat()
    chain = chat(model="no/such-model").with_fallbacks([backup])
    assert chain.invoke("Hi.").content == backup.invoke("Hi.").content
    chain = chat("short").with_fallbacks([backup], exceptions_to_handle=(ContextOverflowError,))
    assert chain.invoke("Hi. " * 200).content


@pytest.mark.usefixtures("no_work")
def test_a_template_that_takes_no_tools(tmp_path: Path) -> None:
    """A conversation that no template can hold is an error of the request."""
    for file in Path(folder("llama")).iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('I take nothing') }}")
    error = refused(
        InvalidRequestError,
        ["I take nothing"],
        [SystemMessage("S"), AIMessage("A")],
        model=str(tmp_path),
    )
    assert error.__cause__ is not None
