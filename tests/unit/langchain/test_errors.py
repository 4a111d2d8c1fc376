"""Errors of the chat model: ours and LangChain's at the same time."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
from langchain_core import exceptions as theirs

from hogwild_agents.errors import (
    ChatTemplateError,
    ContextLengthError,
    EngineClosedError,
    GrammarError,
    HogwildError,
    InvalidAnswerFormatError,
    InvalidInterruptError,
    InvalidJobError,
    InvalidMessageError,
    InvalidSamplingError,
    InvalidTeamError,
    InvalidTokensError,
    ModelLoadError,
    OutOfCacheMemoryError,
    SessionFailedError,
    UnsupportedModelError,
)
from hogwild_agents.langchain import errors
from hogwild_agents.langchain.errors import as_langchain_errors

OURS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, HogwildError) and kind.__module__ == errors.__name__
]
CASES: list[tuple[HogwildError, type[HogwildError], type[Exception]]] = [
    (ContextLengthError("x"), errors.ContextLengthError, theirs.ContextOverflowError),
    (ModelLoadError("x"), errors.ModelLoadError, theirs.ModelNotFoundError),
    (
        UnsupportedModelError("m", "x"),
        errors.UnsupportedModelError,
        theirs.ModelInvalidRequestError,
    ),
    (SessionFailedError("x", "so far"), errors.SessionFailedError, theirs.ModelAPIError),
    (EngineClosedError("x"), errors.SessionFailedError, theirs.ModelAPIError),
]
CASES += [
    (kind("x"), errors.InvalidRequestError, theirs.ModelInvalidRequestError)
    for kind in (
        ChatTemplateError,
        GrammarError,
        InvalidAnswerFormatError,
        InvalidInterruptError,
        InvalidJobError,
        InvalidMessageError,
        InvalidSamplingError,
        InvalidTeamError,
        InvalidTokensError,
        OutOfCacheMemoryError,
    )
]


@pytest.mark.parametrize(("raised", "ours", "langchains"), CASES, ids=lambda case: str(case)[:40])
def test_each_has_its_kind(raised: HogwildError, ours: Any, langchains: Any) -> None:
    """With the words and the cause of what was raised below."""
    with pytest.raises(ours) as caught, as_langchain_errors():
        raise raised
    assert type(caught.value) is ours
    assert isinstance(caught.value, langchains)
    assert isinstance(caught.value, theirs.ModelError)
    assert str(caught.value).startswith(str(raised))
    assert caught.value.__cause__ is raised
    if isinstance(raised, SessionFailedError):
        assert caught.value.partial == "so far"


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_all_are_both(kind: type[HogwildError]) -> None:
    """They go to other processes, and through as they are."""
    assert issubclass(kind, theirs.ModelError)
    error = kind("x")
    assert str(pickle.loads(pickle.dumps(error))) == "x"
    with pytest.raises(kind) as caught, as_langchain_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyError("x"), KeyboardInterrupt(), ValueError("x")], ids=repr)
def test_what_is_not_ours_stays(error: BaseException) -> None:
    """A fault in somebody's own code is told as it is."""
    with pytest.raises(type(error)) as caught, as_langchain_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (
            ContextLengthError("It has 9,000 tokens. Lower reply_tokens, or see max_length in x."),
            ["9,000 tokens. ", "max_tokens", "CollaborationPrompt"],
        ),
        (
            OutOfCacheMemoryError("There are 3.5 pages. Load the model with more."),
            ["3.5 pages. ", "budget", "workers", "engine of your own"],
        ),
    ],
    ids=repr,
)
def test_advice_is_in_this_floors_words(raised: HogwildError, words: list[str]) -> None:
    """The figures stay; what to do names options of a chat model."""
    with pytest.raises(theirs.ModelError) as caught, as_langchain_errors():
        raise raised
    for word in words:
        assert word in str(caught.value)
    for word in ("reply_tokens", "max_length", "Load the model"):
        assert word not in str(caught.value)
