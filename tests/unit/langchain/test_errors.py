"""Errors of the chat model are this package's and LangChain's at the same time."""

from __future__ import annotations

import inspect
import pickle

import pytest
from langchain_core import exceptions
from langchain_core.exceptions import ModelError, ModelInvalidRequestError

from hogwild_agents import errors as below
from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain import errors
from hogwild_agents.langchain.errors import as_langchain_errors
from tests.unit.small_models import chat

KINDS: list[type[HogwildError]] = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, HogwildError) and kind.__module__ == errors.__name__
]
MODEL_ERRORS = [kind for kind in KINDS if kind is not errors.NoAnswerError]

COUNTERPARTS: list[tuple[HogwildError, type[HogwildError], type[Exception]]] = [
    *(
        (kind.__bases__[0]("x"), kind, kind.__bases__[1])
        for kind in MODEL_ERRORS
        if kind is not errors.UnsupportedModelError
    ),
    (
        below.UnsupportedModelError.because("m", "x", 3),
        errors.UnsupportedModelError,
        ModelInvalidRequestError,
    ),
    (below.ChatTemplateError("x"), errors.InvalidRequestError, ModelInvalidRequestError),
    (below.InvalidTeamError("x"), errors.InvalidRequestError, ModelInvalidRequestError),
    (below.EngineClosedError("x"), errors.SessionFailedError, exceptions.ModelAPIError),
    (below.NotANumberError("x", (1,)), errors.SessionFailedError, exceptions.ModelAPIError),
]
"""What is raised below; what comes out above, and LangChain's class of it."""


@pytest.mark.parametrize("kind", MODEL_ERRORS, ids=lambda kind: kind.__name__)
def test_each_is_a_subclass_of_the_one_of_the_same_name(kind: type[HogwildError]) -> None:
    assert kind.__bases__[0] is getattr(below, kind.__name__)
    assert issubclass(kind, ModelError)


@pytest.mark.parametrize(
    ("raised", "kind", "langchains"), COUNTERPARTS, ids=lambda case: str(case)[:40]
)
def test_each_has_a_counterpart(
    raised: HogwildError, kind: type[HogwildError], langchains: type[Exception]
) -> None:
    """With the same words, and the original as its cause."""
    with pytest.raises(HogwildError) as caught, as_langchain_errors():
        raise raised
    assert type(caught.value) is kind
    assert isinstance(caught.value, langchains)
    assert str(caught.value).startswith(str(raised))
    assert caught.value.__cause__ is raised


def test_attributes_survive() -> None:
    """Those of the original; `partial` is there even where nothing was reached."""
    with pytest.raises(below.UnsupportedModelError) as unsupported, as_langchain_errors():
        raise below.UnsupportedModelError.because("m", "it is odd", 3)
    assert (unsupported.value.reason, unsupported.value.layer) == ("it is odd", 3)
    with pytest.raises(below.SessionFailedError) as failed, as_langchain_errors():
        raise below.SessionFailedError("x", partial="so far")
    assert failed.value.partial == "so far"
    with pytest.raises(below.AnswerTimeoutError) as late, as_langchain_errors():
        raise below.AnswerTimeoutError("x", partial="so far")
    assert late.value.partial == "so far"
    with pytest.raises(below.SessionFailedError) as closed, as_langchain_errors():
        raise below.EngineClosedError("x")
    assert closed.value.partial is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_they_can_be_pickled(kind: type[HogwildError]) -> None:
    """They go to other processes, with their attributes."""
    error = kind("x")
    error.__dict__["partial"] = "so far"
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied), copied.partial) == (kind, str(error), "so far")


@pytest.mark.parametrize("kind", MODEL_ERRORS, ids=lambda kind: kind.__name__)
def test_they_pass_as_they_are(kind: type[HogwildError]) -> None:
    """Nothing is wrapped twice."""
    error = kind("x")
    with pytest.raises(kind) as caught, as_langchain_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), ValueError("x")], ids=repr)
def test_other_errors_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, as_langchain_errors():
        raise error
    assert caught.value is error


def test_the_chat_model_raises_what_the_package_knows() -> None:
    """`except` with the package's own classes is enough."""
    with pytest.raises(below.ContextLengthError):
        chat("short").invoke("x " * 600)
    with pytest.raises(below.ModelLoadError):
        chat(model="no/such-model").invoke("Hi.")
    with pytest.raises(below.InvalidRequestError):
        chat().invoke("Hi.", workers=99)
    with pytest.raises(below.AnswerTimeoutError) as late:
        chat(budget=3000, max_tokens=3000, timeout=0.1).invoke("Hi.")
    assert late.value.partial is not None


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (
            below.ContextLengthError("It has 9,000 tokens. Lower reply_tokens, or max_length."),
            ["9,000 tokens. ", "max_tokens", "CollaborationPrompt"],
        ),
        (
            below.OutOfCacheMemoryError("There are 3.5 pages. Load the model with more."),
            ["3.5 pages. ", "budget", "workers", "engine of your own"],
        ),
    ],
    ids=repr,
)
def test_advice_names_options_of_the_chat_model(raised: HogwildError, words: list[str]) -> None:
    """The figures stay; the arguments of the parts below are not mentioned."""
    with pytest.raises(HogwildError) as caught, as_langchain_errors():
        raise raised
    for word in words:
        assert word in str(caught.value)
    for word in ("reply_tokens", "max_length", "Load the model"):
        assert word not in str(caught.value)
