"""The errors of `ChatHogwild`: this package's errors that are LangChain's as well.

Each class is a subclass of the one of the same name in `hogwild_agents.errors`, and of a class in
`langchain_core.exceptions`. Code for other providers catches the latter, and code for this package
the former, whichever part of it raises them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelTimeoutError,
    OutputParserException,
)

from hogwild_agents import errors


class InvalidRequestError(errors.InvalidRequestError, ModelInvalidRequestError):
    """A message, an option or a schema makes no sense; raised before any work."""


class ContextLengthError(errors.ContextLengthError, ContextOverflowError):
    """The conversation does not fit the model's context; raised before any work."""


class OutOfCacheMemoryError(errors.OutOfCacheMemoryError, ModelInvalidRequestError):
    """The session would not fit even into an empty cache; raised before any work."""


class ModelLoadError(errors.ModelLoadError, ModelNotFoundError):
    """There is no such model on this machine or on the hub, or it cannot be read."""


class HubUnreachableError(errors.HubUnreachableError, ModelConnectionError):
    """The model is not on this machine, and the hub could not be reached."""


class UnsupportedModelError(errors.UnsupportedModelError, ModelInvalidRequestError):
    """The engine cannot compute this model faithfully; the message says why."""


class AnswerTimeoutError(errors.AnswerTimeoutError, ModelTimeoutError):
    """There was no answer in time, so the session was stopped; `partial` is its result so far."""


class SessionFailedError(errors.SessionFailedError, ModelAPIError):
    """A session failed while it ran; `partial` is its result so far, if it had begun."""


class NoAnswerError(errors.HogwildError, OutputParserException):
    """A reply holds no answer; `llm_output` is the text that was searched."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Keeps the message as it is: LangChain's constructor adds a link to it every time."""
        return type(self), self.args, {**self.__dict__, "args": self.args}


_SUBCLASSES: dict[type[errors.HogwildError], type[errors.HogwildError]] = {
    errors.InvalidRequestError: InvalidRequestError,
    errors.ContextLengthError: ContextLengthError,
    errors.OutOfCacheMemoryError: OutOfCacheMemoryError,
    errors.ModelLoadError: ModelLoadError,
    errors.HubUnreachableError: HubUnreachableError,
    errors.UnsupportedModelError: UnsupportedModelError,
    errors.AnswerTimeoutError: AnswerTimeoutError,
    errors.SessionFailedError: SessionFailedError,
}

_ADVICE: dict[type[errors.HogwildError], str] = {
    ContextLengthError: (
        "Shorten the conversation, lower max_tokens, or shorten the team's prompt with "
        "prompt=CollaborationPrompt(style='brief')."
    ),
    OutOfCacheMemoryError: (
        "Lower budget or workers, or give an engine of your own with a larger cache: "
        "Engine(SharedCacheModel.from_pretrained(..., cache_bytes=...))."
    ),
}
"""Advice in terms of the chat model's options; it replaces that of the parts below."""


@contextmanager
def as_langchain_errors() -> Iterator[None]:
    """Turns this package's errors into the subclasses above, with the original as the cause.

    Errors without a subclass here become an `InvalidRequestError` if they are about the request,
    and a `SessionFailedError` otherwise.
    """
    try:
        yield
    except ModelError:
        raise
    except errors.HogwildError as error:
        raise _as_langchain_error(error) from error


def _as_langchain_error(error: errors.HogwildError) -> errors.HogwildError:
    """The subclass for an error, with the same attributes."""
    kind = next((_SUBCLASSES[base] for base in type(error).__mro__ if base in _SUBCLASSES), None)
    if kind is None:
        return SessionFailedError(str(error))
    message = str(error)
    if kind in _ADVICE:
        message = f"{message.partition('. ')[0].rstrip('.')}. {_ADVICE[kind]}"
    failure = kind(message)
    failure.__dict__.update(error.__dict__)
    return failure
