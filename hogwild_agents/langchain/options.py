"""The chat model's options, and their checks, which load no model."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from langchain_core.language_models import BaseChatModel
from langchain_core.utils import from_env
from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hogwild_agents.engine import Engine
from hogwild_agents.engine.loading import parse_dtype
from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.langchain.runnables import as_interrupt
from hogwild_agents.langchain.runnables.answers import format_of
from hogwild_agents.langchain.runnables.prompts import team_prompt
from hogwild_agents.names import POCKET, worker_names
from hogwild_agents.registry import parse_device, team_defaults
from hogwild_agents.team.interrupts import choose_interrupts
from hogwild_agents.team.layouts import choose_layout
from hogwild_agents.version import __version__

REPLY_ARGUMENTS = ("tools", "tool_choice", "response_format", "parallel_tool_calls")
"""Arguments of a call that are no options."""

_NOT_PER_CALL = ("engine", "streaming", "api_key")
_IGNORED = ("stream", "strict", "ls_structured_output_format")


class Options(BaseChatModel):
    """The options of a `ChatHogwild`."""

    model: str = Field(
        default_factory=from_env("HOGWILD_MODEL", default=POCKET), validate_default=True
    )
    """`pocket`, which ships inside, a folder, or a name on the Hugging Face hub; `HOGWILD_MODEL` if
    not given, or else `pocket`."""
    workers: int | list[str] = 2
    """How many workers, 1 to 8, or their names; one is a plain chat model. The pocket model takes
    a number from 1 to 4."""
    layout: Any = "combined"
    """What each worker sees: `combined`, `interleaved`, `contiguous`, or a function from
    `TeamBlocks` to views."""
    budget: int | None = Field(default=None, ge=1)
    """Forward passes of thinking; if not given 4,096, and 1,024 for the pocket model."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The maximum number of tokens in the reply, 1,024 if not given; thoughts do not count."""
    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """0 takes the likeliest token; if not given 0.6, and 0 for the pocket model."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Keeps the likeliest tokens whose probabilities reach p together; 0.95 if not given."""
    top_k: int | None = Field(default=None, ge=0)
    """Keeps the k likeliest tokens, 20 if not given; 0 keeps all."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Keeps tokens at least this likely relative to the likeliest; 0 if not given."""
    seed: int | None = Field(default=None, ge=0, lt=2**64)
    """Makes sampling repeatable."""
    stop: list[Annotated[str, Field(min_length=1)]] | None = None
    """Strings before which a reply ends."""
    interrupts: list[Any] | None = None
    """Called whenever a worker begins a step: functions from an `InterruptContext` to a text or
    None, or runnables. If not given the redundancy check, and none for one worker."""
    finisher: Literal["reply", "answer"] | None = None
    """How a call ends: with `reply` one worker writes to the user after the thinking, with
    `answer` the content is the bare answer. If not given `answer` for the pocket model, unless
    there are tools or a schema, and `reply` for others."""
    prompt: Any = "default"
    """What the team is told about working together: a `CollaborationPrompt`, or None to add
    nothing to the messages."""
    answer: Any = None
    """The format of the final answer, which ends the thinking when a worker states it: `boxed` (if
    not given), `number`, `choice`, `json`, `code`, a pydantic class, a compiled pattern, or a
    function from a text to the answer or None."""
    reasoning: bool = True
    """Whether messages show what the workers thought."""
    device: str | None = Field(default_factory=from_env("HOGWILD_DEVICE", default=None))
    """`cuda`, `cpu`, ...; `HOGWILD_DEVICE` if not given, or else a GPU if there is one."""
    dtype: str = "auto"
    """`float32`, `bfloat16`, `float16`, or `auto`, the checkpoint's own."""
    engine: Engine | None = Field(default=None, exclude=True)
    """An `Engine` of your own, whose model is used; if not given one is shared by all instances
    with equal `model`, `device` and `dtype`."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds for one answer, not counting the loading of the model; after that the session is
    stopped and `AnswerTimeoutError` raised."""
    max_retries: int = Field(default=2, ge=0)
    """How often a call is tried again if the engine fails before the thinking begins; no other
    failure is tried again."""
    streaming: bool | None = None
    """Whether `invoke` streams, so that callbacks get every token."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """Not used, as nothing leaves this machine; accepted so that models can be swapped."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    @field_validator("interrupts", mode="before")
    @classmethod
    def _check_is_list(cls, value: Any) -> Any:
        if value is None or isinstance(value, list | tuple):
            return value
        raise ValueError(f"Interrupts come in a list: give interrupts=[{value!r:.80}].")

    @field_validator(
        *("model", "workers", "layout", "interrupts", "prompt", "answer", "device", "dtype"),
        "output_version",
    )
    @classmethod
    def _check_option(cls, value: Any, info: ValidationInfo) -> Any:
        try:
            _check(str(info.field_name), value, info.data)
        except HogwildError as error:
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        self._add_version("hogwild-agents", __version__)
        if self.engine is not None and "model" not in self.model_fields_set:
            self.model = self.engine.model.report.name
        team_defaults(self.model, self.workers)
        return self

    def _for_call(self, kwargs: dict[str, Any]) -> Self:
        """These options with those of one call, which are taken out of `kwargs`."""
        names = Options.model_fields.keys() - BaseChatModel.model_fields.keys() - {*_NOT_PER_CALL}
        changes = {name: kwargs.pop(name) for name in [*kwargs] if name in names}
        for name in _IGNORED:
            kwargs.pop(name, None)
        unknown = next((name for name in kwargs if name not in REPLY_ARGUMENTS), None)
        if unknown is not None:
            options = [name for name in Options.model_fields if name in names]
            raise InvalidRequestError(
                f"Unknown argument {unknown}={kwargs[unknown]!r:.80}: a call takes "
                f"{', '.join((*REPLY_ARGUMENTS, *options))}."
            )
        if not changes:
            return self
        if self.engine is not None and changes.get("model", self.model) != self.model:
            raise InvalidRequestError(
                f"model={changes['model']!r}, but this instance has an engine of its own with "
                f"{self.model!r}: make another instance for the other model."
            )
        values = {name: getattr(self, name) for name in type(self).model_fields}
        try:
            checked = type(self).model_validate(values | changes)
        except ValidationError as error:
            raise InvalidRequestError(
                f"The arguments of this call make no sense: {error}"
            ) from error
        return self.model_copy(update={name: getattr(checked, name) for name in changes})


def _check(name: str, value: Any, earlier: dict[str, Any]) -> None:
    """Checks the value of one option, given those of the options before it.

    Raises:
        HogwildError: The value makes no sense.
    """
    match name:
        case "model" if not value.strip():
            raise InvalidRequestError(
                f"model={value!r} names no model: give a folder or a name on the Hugging Face hub, "
                f"or leave model and HOGWILD_MODEL out for {POCKET!r}, which ships inside."
            )
        case "workers":
            worker_names(value)
        case "layout" if "workers" in earlier:
            choose_layout(value, len(worker_names(earlier["workers"])))
        case "interrupts" if value is not None:
            choose_interrupts([as_interrupt(interrupt) for interrupt in value])
        case "prompt" if value != "default":
            team_prompt(value)
        case "answer" if value is not None:
            format_of(value)
        case "device" if value:
            parse_device(value)
        case "dtype":
            parse_dtype(value)
        case "output_version" if value not in (None, "v0", "v1"):
            raise InvalidRequestError(f"output_version={value!r} is unknown: use 'v0' or 'v1'.")
