"""The engine's errors: one small hierarchy, each message with the value at fault and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hogwild_agents.engine.check import Report


class HogwildError(Exception):
    """Base of every error that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets errors go to other processes, whatever their constructor takes."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[HogwildError], arguments: tuple[Any, ...]) -> HogwildError:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class ModelLoadError(HogwildError):
    """A model could not be read: no such path or hub name, or files that transformers rejects."""


class UnsupportedModelError(HogwildError):
    """The engine cannot compute this model faithfully, so it refuses to load it.

    Attributes:
        reason: Why, in words, without the model's name.
        layer: Index of the layer at fault, or None where the whole model is.
        report: What the self-check had found until then, if it had begun.
    """

    report: Report | None = None

    def __init__(self, model_name: str, reason: str, layer: int | None = None) -> None:
        where = "" if layer is None else f" layer {layer}:"
        super().__init__(
            f"{model_name} cannot run on a shared cache:{where} {reason}. "
            "Choose a rotary decoder model whose every layer is softmax attention "
            "(Llama, Qwen, Mistral, Gemma, ...); `hogwild check PATH` examines one."
        )
        self.reason = reason
        self.layer = layer


class OutOfCacheMemoryError(HogwildError, MemoryError):
    """The cache has no room for new tokens. Every block is as it was before the call."""


class InvalidBlockError(HogwildError, ValueError):
    """A block was used that is freed, or that belongs to another model."""


class InvalidViewError(HogwildError, ValueError):
    """The views of a pass make no sense together."""


class InvalidTokensError(HogwildError, ValueError):
    """Token ids that the model cannot take."""


class ContextLengthError(HogwildError, ValueError):
    """A view holds more tokens than the model has positions for."""


class NotANumberError(HogwildError, ArithmeticError):
    """The model's logits hold NaN.

    Attributes:
        workers: Indices of the workers whose logits hold NaN.
    """

    def __init__(self, message: str, workers: tuple[int, ...]) -> None:
        super().__init__(message)
        self.workers = workers


class InvalidSamplingError(HogwildError, ValueError):
    """Sampling parameters outside their range, or logits from which nothing can be chosen."""


class InvalidJobError(HogwildError, ValueError):
    """A job that no engine could run."""


class EngineClosedError(HogwildError, RuntimeError):
    """The engine was closed, or its thread broke down; nothing can be submitted any more."""


class SessionEndedError(HogwildError, RuntimeError):
    """Something was said to a session that has ended."""


class SessionFailedError(HogwildError, RuntimeError):
    """A session ended with an error, which is this one's cause.

    Attributes:
        partial: What the session had reached.
    """

    def __init__(self, message: str, partial: Any) -> None:
        super().__init__(message)
        self.partial = partial
