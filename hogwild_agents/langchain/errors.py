"""What the LangChain face raises: this package's errors, each one of LangChain's at the same time.

Each class here is a subclass of the one of the same name in `hogwild_agents.errors`. Code that
catches `langchain_core.exceptions` works as with any other provider, and code that catches
`hogwild_agents.errors` sees the same faults as below.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    """A request that makes no sense: a message, an option, a schema; found before any work."""


class ContextLengthError(errors.ContextLengthError, ContextOverflowError):
    """The conversation does not fit the model's context; found before any work."""


class OutOfCacheMemoryError(errors.OutOfCacheMemoryError, ModelInvalidRequestError):
    """The session would not fit into the empty cache; found before any work."""


class ModelLoadError(errors.ModelLoadError, ModelNotFoundError):
    """There is no such model, here or on the hub, or it cannot be read."""


class HubUnreachableError(errors.HubUnreachableError, ModelConnectionError):
    """The model is not on this machine, and the hub could not be asked for it."""


class UnsupportedModelError(errors.UnsupportedModelError, ModelInvalidRequestError):
    """The engine cannot compute this model faithfully; the message says why."""


class AnswerTimeoutError(errors.AnswerTimeoutError, ModelTimeoutError):
    """There was no answer in time; the session was stopped, `partial` is what it had reached."""


class SessionFailedError(errors.SessionFailedError, ModelAPIError):
    """A session failed while it ran; `partial` is what it had reached, if it had begun."""


class NoAnswerError(errors.HogwildError, OutputParserException):
    """A reply holds no answer where there must be one; `llm_output` is what was searched."""


_KINDS: tuple[type[errors.HogwildError], ...] = (
    AnswerTimeoutError,
    ContextLengthError,
    OutOfCacheMemoryError,
    HubUnreachableError,
    ModelLoadError,
    UnsupportedModelError,
    InvalidRequestError,
    SessionFailedError,
)
"""In the order in which they are tried: a kind before the kinds that hold it."""

_ADVICE: dict[type[errors.HogwildError], str] = {
    ContextLengthError: (
        "Shorten the conversation, lower max_tokens, or tell the team less, as with "
        "prompt=CollaborationPrompt(style='brief')."
    ),
    OutOfCacheMemoryError: (
        "Lower budget or workers, or give an engine of your own, whose model has more cache: "
        "Engine(SharedCacheModel.from_pretrained(..., cache_bytes=...))."
    ),
}
"""What to do in a chat model's words, where the parts below name arguments of their own."""


@contextmanager
def as_langchain_errors() -> Iterator[None]:
    """Raises this package's errors as the subclasses above, with the original as the cause.

    Errors that have no counterpart here are an `InvalidRequestError` if they say that the request
    makes no sense, or else a `SessionFailedError`.
    """
    try:
        yield
    except ModelError:
        raise
    except errors.HogwildError as error:
        raise _as_langchain_error(error) from error


def _as_langchain_error(error: errors.HogwildError) -> errors.HogwildError:
    kind = next((kind for kind in _KINDS if isinstance(error, kind.__bases__[0])), None)
    kind = kind or SessionFailedError
    message = str(error)
    if kind in _ADVICE:
        message = f"{message.partition('. ')[0].rstrip('.')}. {_ADVICE[kind]}"
    failure = errors.restore(kind, (message,))
    failure.__dict__.update(error.__dict__)
    return failure
