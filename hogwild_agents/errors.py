"""Errors of the chat model: this package's own, which are LangChain's at the same time.

Code that catches `langchain_core.exceptions` works as with any other provider; code that catches
`HogwildError` sees what the floors below raise.
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
)

from hogwild_agents.engine import (
    ContextLengthError,
    HogwildError,
    InvalidSamplingError,
    ModelLoadError,
    OutOfCacheMemoryError,
    SessionFailedError,
    UnsupportedModelError,
)
from hogwild_agents.team import Result


class InvalidRequestError(HogwildError, ModelInvalidRequestError, ValueError):
    """A request that makes no sense: a message, an option, a schema; found before any work."""


class PromptTooLongError(HogwildError, ContextOverflowError, ValueError):
    """The conversation does not fit the model's context; found before any work."""


class ModelMissingError(HogwildError, ModelNotFoundError):
    """There is no such model, here or on the hub, or it cannot be read."""


class HubUnreachableError(HogwildError, ModelConnectionError):
    """The model is not on this machine, and the hub could not be asked for it."""


class ModelRefusedError(HogwildError, ModelInvalidRequestError):
    """The engine cannot compute this model faithfully; the message says why."""


class AnswerTimeoutError(HogwildError, ModelTimeoutError, TimeoutError):
    """The time for one answer is over; the session was stopped.

    Attributes:
        partial: What it had reached.
    """

    partial: Result | None = None


class EngineFailedError(HogwildError, ModelAPIError):
    """A session failed while it was at work.

    Attributes:
        partial: What it had reached, if it had begun.
    """

    partial: Result | None = None


_KINDS: tuple[tuple[type[BaseException], type[HogwildError]], ...] = (
    (ContextLengthError, PromptTooLongError),
    (ModelLoadError, ModelMissingError),
    (UnsupportedModelError, ModelRefusedError),
    (SessionFailedError, EngineFailedError),
    (OutOfCacheMemoryError, InvalidRequestError),
    (InvalidSamplingError, InvalidRequestError),
)

_ADVICE: tuple[tuple[type[HogwildError], str], ...] = (
    (
        ContextLengthError,
        "Shorten the conversation, lower max_tokens, or tell the team less, as with "
        "prompt=CollaborationPrompt(style='brief').",
    ),
    (
        OutOfCacheMemoryError,
        "Lower budget or workers, or give an engine of your own, whose model has more cache: "
        "Engine(SharedCacheModel.from_pretrained(..., cache_bytes=...)).",
    ),
)
"""What to do in this floor's words, where the floors below name arguments of their own."""


@contextmanager
def as_langchain_errors() -> Iterator[None]:
    """Raises this package's errors as ones that are LangChain's too.

    Errors that say that a request makes no sense are `ValueError` or `TypeError` on every floor.
    """
    try:
        yield
    except ModelError:
        raise
    except HogwildError as error:
        invalid = isinstance(error, ValueError | TypeError)
        default = InvalidRequestError if invalid else EngineFailedError
        kind = next((kind for given, kind in _KINDS if isinstance(error, given)), default)
        failure = kind(_in_own_words(error))
        if isinstance(failure, EngineFailedError):
            failure.partial = getattr(error, "partial", None)
        raise failure from error


def _in_own_words(error: HogwildError) -> str:
    """What went wrong, in the words below; and what to do, in a chat model's."""
    said = str(error)
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return f"{said.partition('. ')[0].rstrip('.')}. {advice}"
    return said
