"""Options of the chat model: what each one is, and whether it makes sense; nothing is loaded."""

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

from hogwild_agents import __version__
from hogwild_agents.engine import Engine
from hogwild_agents.engine.loading import parse_dtype
from hogwild_agents.errors import HogwildError
from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.langchain.runnables import as_interrupt
from hogwild_agents.langchain.runnables.answers import format_of
from hogwild_agents.langchain.teams import team_prompt
from hogwild_agents.names import POCKET, worker_names
from hogwild_agents.registry import parse_device, team_defaults
from hogwild_agents.team.interrupts import choose_interrupts
from hogwild_agents.team.layouts import choose_layout

FORM = ("tools", "tool_choice", "response_format", "parallel_tool_calls")
"""What a call may be given beside options."""

_FOR_GOOD = ("engine", "streaming", "api_key")
_IGNORED = ("stream", "strict", "ls_structured_output_format")


class Options(BaseChatModel):
    """All that can be said of a `ChatHogwild`."""

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
    """The most tokens of the reply, 1,024 if not given; thoughts do not count."""
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
    """Texts before which a reply ends."""
    interrupts: list[Any] | None = None
    """Asked whenever a worker begins a step: functions from an `InterruptContext` to a text or
    None, or runnables. If not given the redundancy check, and none for one worker."""
    finisher: Literal["reply", "answer"] | None = None
    """How it ends: with `reply` one worker writes to the user after the thinking, with `answer`
    the content is the bare answer. If not given `answer` for the pocket model, unless there are
    tools or a schema, and `reply` for others."""
    prompt: Any = "default"
    """What the team is told of working together: a `CollaborationPrompt`; None adds nothing to the
    messages."""
    answer: Any = None
    """How the final answer looks, which ends the thinking when a worker states it: `boxed` (if not
    given), `number`, `choice`, `json`, `code`, a pydantic class, a compiled pattern, or a function
    from a text to the answer or None."""
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
    """Seconds for one answer, without the loading of the model; then the session is stopped and
    `AnswerTimeoutError` raised."""
    max_retries: int = Field(default=2, ge=0)
    """How often a session is tried again whose engine failed before it began to think; nothing
    else is tried again."""
    streaming: bool | None = None
    """Whether `invoke` streams, for callbacks that want every token."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """Not used, as nothing leaves this machine; so that models can be swapped."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True,
        extra="forbid",
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    @field_validator("interrupts", mode="before")
    @classmethod
    def _are_a_list(cls, given: Any) -> Any:
        if given is None or isinstance(given, list | tuple):
            return given
        raise ValueError(f"Interrupts come in a list: give interrupts=[{given!r:.80}].")

    @field_validator(
        *("model", "workers", "layout", "interrupts", "prompt", "answer", "device", "dtype"),
        "output_version",
    )
    @classmethod
    def _makes_sense(cls, given: Any, info: ValidationInfo) -> Any:
        try:
            _check(str(info.field_name), given, info.data)
        except HogwildError as error:
            raise ValueError(str(error)) from error
        return given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._add_version("hogwild-agents", __version__)
        if self.engine is not None and "model" not in self.model_fields_set:
            self.model = self.engine.model.report.name
        team_defaults(self.model, self.workers)
        return self

    def _for_call(self, kwargs: dict[str, Any]) -> Self:
        """This model with what is given for one call only; takes that out of `kwargs`."""
        own = Options.model_fields.keys() - BaseChatModel.model_fields.keys()
        given = {
            name: kwargs.pop(name) for name in [*kwargs] if name in own and name not in _FOR_GOOD
        }
        for name in _IGNORED:
            kwargs.pop(name, None)
        unknown = [name for name in kwargs if name not in FORM]
        if unknown:
            names = [name for name in Options.model_fields if name in own - {*_FOR_GOOD}]
            raise InvalidRequestError(
                f"Unknown argument {unknown[0]}={kwargs[unknown[0]]!r:.80}: a call takes "
                f"{', '.join((*FORM, *names))}."
            )
        if not given:
            return self
        if self.engine is not None and given.get("model", self.model) != self.model:
            raise InvalidRequestError(
                f"model={given['model']!r}, but this instance has an engine of its own with "
                f"{self.model!r}: make another instance for the other model."
            )
        try:
            kept = {name: getattr(self, name) for name in type(self).model_fields}
            checked = type(self).model_validate(kept | given)
        except ValidationError as error:
            raise InvalidRequestError(
                f"The arguments of this call make no sense: {error}"
            ) from error
        return self.model_copy(update={name: getattr(checked, name) for name in given})


def _check(name: str, given: Any, others: dict[str, Any]) -> None:
    """Raises HogwildError if an option makes no sense beside those before it."""
    match name:
        case "model" if not given.strip():
            raise InvalidRequestError(
                f"model={given!r} names no model: give a folder or a name on the Hugging Face hub, "
                f"or leave model and HOGWILD_MODEL out for {POCKET!r}, which ships inside."
            )
        case "workers":
            worker_names(given)
        case "layout" if "workers" in others:
            choose_layout(given, len(worker_names(others["workers"])))
        case "interrupts" if given is not None:
            choose_interrupts([as_interrupt(one) for one in given])
        case "prompt" if given != "default":
            team_prompt(given)
        case "answer" if given is not None:
            format_of(given)
        case "device" if given:
            parse_device(given)
        case "dtype":
            parse_dtype(given)
        case "output_version" if given not in (None, "v0", "v1"):
            raise InvalidRequestError(f"output_version={given!r} is unknown: use 'v0' or 'v1'.")
