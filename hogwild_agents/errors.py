"""Every error that this package raises on purpose, in one tree.

    HogwildError
    ├── InvalidRequestError (ValueError)     the request makes no sense; found before any work
    │   ├── InvalidTeamError                 workers, prompt, budgets, ...
    │   ├── InvalidLayoutError               no such layout, or one whose views make no sense
    │   ├── InvalidInterruptError            not callable, or it returned something else than text
    │   ├── InvalidAnswerFormatError         no such answer format
    │   ├── InvalidMessageError              a message that no conversation can hold
    │   ├── ChatTemplateError                the model's chat template cannot render it
    │   ├── GrammarError                     no grammar can express the schema
    │   ├── InvalidSamplingError             sampling parameters out of range
    │   ├── InvalidTokensError               token ids that the model does not have
    │   ├── InvalidViewError                 views that make no sense together
    │   ├── InvalidBlockError                a block that is freed, or another model's
    │   ├── InvalidJobError                  a job that no engine can run
    │   ├── ContextLengthError               more tokens than the model has positions for
    │   └── EvaluationError                  an evaluation that cannot start, or a broken run folder
    │       ├── BadRowError                  a row of a data set
    │       └── BadTestsError                tests of a program
    ├── ModelLoadError                       no such model, or it cannot be read
    │   └── HubUnreachableError              ... because the hub cannot be asked
    ├── UnsupportedModelError                the engine cannot compute this model faithfully
    ├── OutOfCacheMemoryError (MemoryError)  the cache is full
    ├── NotANumberError (ArithmeticError)    the model's logits hold NaN
    ├── AnswerTimeoutError (TimeoutError)    no answer in time
    ├── SessionFailedError (RuntimeError)    a session failed while it ran; `partial` is its record
    ├── SessionEndedError (RuntimeError)     something was said to a session that has ended
    └── EngineClosedError (RuntimeError)     the engine takes nothing any more

Each message says what happened, with which value, and what to do about it. Every class can be made
from its message alone, so that errors can be pickled; what else it holds are attributes.

What `ChatHogwild` raises are subclasses of these that are LangChain's errors as well, see
`hogwild_agents.langchain.errors`.
"""

from __future__ import annotations

from typing import Any, Self


class HogwildError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidRequestError(HogwildError, ValueError):
    """A request that makes no sense: an argument, an option, a schema. Found before any work."""


class InvalidTeamError(InvalidRequestError):
    """A team that cannot be: its workers, its prompt, its budgets."""


class InvalidLayoutError(InvalidRequestError):
    """There is no such layout, or its views make no sense."""


class InvalidInterruptError(InvalidRequestError, TypeError):
    """An interrupt is not callable, or returned something else than text or None."""


class InvalidAnswerFormatError(InvalidRequestError):
    """There is no such answer format, or it is not one."""


class InvalidMessageError(InvalidRequestError):
    """A message is empty, or not one that a conversation can hold."""


class ChatTemplateError(InvalidRequestError):
    """The tokenizer's chat template cannot render a conversation."""


class GrammarError(InvalidRequestError):
    """No grammar can express a schema, or none can be made for a tokenizer."""


class InvalidSamplingError(InvalidRequestError):
    """Sampling parameters outside their range, or logits from which nothing can be chosen."""


class InvalidTokensError(InvalidRequestError):
    """Token ids that the model cannot take."""


class InvalidViewError(InvalidRequestError):
    """The views of a pass make no sense together."""


class InvalidBlockError(InvalidRequestError):
    """A block was used that is freed, or that belongs to another model."""


class InvalidJobError(InvalidRequestError):
    """A job that no engine can run."""


class ContextLengthError(InvalidRequestError):
    """A view, or a prompt, holds more tokens than the model has positions for."""


class EvaluationError(InvalidRequestError):
    """An evaluation that cannot start, or a run folder that is damaged."""


class BadRowError(EvaluationError):
    """A row of a data set does not hold what its schema asks for."""


class BadTestsError(EvaluationError):
    """The tests that come with a program cannot be read."""


class ModelLoadError(HogwildError):
    """A model could not be read: no such path or hub name, or files that transformers rejects."""


class HubUnreachableError(ModelLoadError):
    """The model is not on this machine, and the hub could not be asked for it."""


class UnsupportedModelError(HogwildError):
    """The engine cannot compute this model faithfully, so it refuses to load it.

    Attributes:
        reason: Why, in words, without the model's name.
        layer: Index of the layer at fault, or None where the whole model is.
        report: What the self-check had found until then, if it had begun; a
            `hogwild_agents.engine.Report`.
    """

    def __init__(
        self, message: str, *, reason: str = "", layer: int | None = None, report: Any = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.layer = layer
        self.report = report

    @classmethod
    def because(cls, model_name: str, reason: str, layer: int | None = None) -> Self:
        """The error for a model that is refused for a reason, which may lie in one layer."""
        where = "" if layer is None else f" layer {layer}:"
        message = (
            f"{model_name} cannot run on a shared cache:{where} {reason}. "
            "Choose a rotary decoder model whose every layer is softmax attention "
            "(Llama, Qwen, Mistral, Gemma, ...); `hogwild check PATH` examines one."
        )
        return cls(message, reason=reason, layer=layer)


class OutOfCacheMemoryError(HogwildError, MemoryError):
    """The cache has no room for new tokens. Every block is as it was before the call."""


class NotANumberError(HogwildError, ArithmeticError):
    """The model's logits hold NaN.

    Attributes:
        workers: Indices of the workers whose logits hold NaN.
    """

    def __init__(self, message: str, workers: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.workers = workers


class AnswerTimeoutError(HogwildError, TimeoutError):
    """There was no answer in time; the session was stopped.

    Attributes:
        partial: What it had reached, a `hogwild_agents.team.Result`; None if that is unknown.
    """

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


class SessionFailedError(HogwildError, RuntimeError):
    """A session ended with an error, which is this one's cause.

    Attributes:
        partial: What it had reached, a `hogwild_agents.team.Result`; None if it had not begun.
    """

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


class SessionEndedError(HogwildError, RuntimeError):
    """Something was said to a session that has ended."""


class EngineClosedError(HogwildError, RuntimeError):
    """The engine was closed, or its thread broke down; nothing can be submitted any more."""
