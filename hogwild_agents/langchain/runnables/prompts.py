"""The messages that a team receives, made from a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from langchain_core.messages import (
    AnyMessage,
    BaseMessage,
    SystemMessage,
    convert_to_messages,
)
from typing_extensions import TypedDict

from hogwild_agents.errors import InvalidMessageError
from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.langchain.messages import COLLABORATION
from hogwild_agents.langchain.runnables.answers import format_of
from hogwild_agents.langchain.runnables.base import HogwildRunnable
from hogwild_agents.names import worker_names
from hogwild_agents.team import prompts
from hogwild_agents.team.prompts import Style
from hogwild_agents.team.steps import SEPARATOR

PROBLEM_KEYS = ("question", "problem", "messages")
"""Keys for the problem in a dict."""


class PromptInput(TypedDict, total=False):
    """A dict with the problem under one key, and fields that replace the prompt's own."""

    question: str | list[AnyMessage]
    problem: str | list[AnyMessage]
    messages: list[AnyMessage]
    workers: int | list[str]
    style: Style
    examples: bool
    extra: str
    layout: str
    answer: Any


class CollaborationPrompt(HogwildRunnable):
    """Turns a question, messages or a dict into the messages that a team receives.

    The first one is the system message. It tells the workers how to work together, and ends with
    the conversation's own system text. The rest of the conversation is unchanged.

    Attributes:
        workers: How many, or their names.
        style: "you", "we", "brief" or "names", as in `team.CollaborationPrompt`.
        examples: Whether worked examples are shown.
        extra: The developer's own instructions.
        layout: What a worker sees.
        answer: How to state the final answer, in any format that `FinalAnswer` takes.

    Raises:
        InvalidTeamError: There is no such team, or no such style.
        InvalidAnswerFormatError: There is no such answer format.
        InvalidMessageError: The input has no problem.

    Example:
        CollaborationPrompt(workers=3).invoke("How many primes are there below 100?")
        CollaborationPrompt().invoke({"question": "2 + 2?", "answer": "number"})
    """

    run_type: ClassVar[str | None] = "prompt"

    workers: int | Sequence[str] = 2
    style: Style = "you"
    examples: bool = True
    extra: str = ""
    layout: str = "combined"
    answer: Any = "boxed"

    def __init__(
        self,
        *,
        workers: int | Sequence[str] = 2,
        style: Style = "you",
        examples: bool = True,
        extra: str = "",
        layout: str = "combined",
        answer: Any = "boxed",
        name: str | None = None,
    ) -> None:
        worker_names(workers)
        prompts.CollaborationPrompt(style=style, examples=examples, extra=extra)
        format_of(answer)
        super().__init__(
            workers=workers,
            style=style,
            examples=examples,
            extra=extra,
            layout=layout,
            answer=answer,
            name=name,
        )

    @property
    def InputType(self) -> Any:  # noqa: N802
        """The type of the input."""
        return str | list[AnyMessage] | PromptInput

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """The type of the output."""
        return list[AnyMessage]

    def as_team_prompt(self) -> prompts.CollaborationPrompt:
        """The prompt for a `Team`, which has workers, layout and answer of its own."""
        return prompts.CollaborationPrompt(
            style=self.style, examples=self.examples, extra=self.extra
        )

    def _run(self, problem: Any, /, **fields: Any) -> list[BaseMessage]:
        """The messages; `fields` replace the prompt's own for this time."""
        if isinstance(problem, Mapping):
            problem, fields = self._unpack({**problem, **fields})
        collaboration = self.partial(**fields)._text()
        messages = conversation(problem)
        system = [message.text for message in messages if isinstance(message, SystemMessage)]
        rest = [message for message in messages if not isinstance(message, SystemMessage)]
        text = SEPARATOR.join(part for part in [collaboration, *system] if part.strip())
        if not text:
            return rest
        # Marks the package's own text, which a model need not treat as text from outside.
        mark = {"text": collaboration, "workers": [*worker_names(self.workers)]}
        return [SystemMessage(text, additional_kwargs={COLLABORATION: mark}), *rest]

    def _unpack(self, fields: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The problem in a dict, and the other fields."""
        problems = [fields.pop(key) for key in PROBLEM_KEYS if key in fields]
        unknown = [key for key in fields if key not in type(self).model_fields]
        if len(problems) == 1 and not unknown:
            return problems[0], fields
        fault = f"the unknown key {unknown[0]!r}" if unknown else f"{len(problems)} problems"
        raise InvalidMessageError(
            f"The dict for {self.get_name()} holds {fault}: give the problem under one of "
            f"{', '.join(PROBLEM_KEYS)}, and otherwise only {', '.join(type(self).model_fields)}."
        )

    def _text(self) -> str:
        return self.as_team_prompt().system(
            worker_names(self.workers),
            layout=self.layout,
            answer=format_of(self.answer).instruction,
        )


def team_prompt(prompt: Any) -> prompts.CollaborationPrompt:
    """The prompt that a `Team` takes, from the chat model's option.

    Raises:
        InvalidRequestError: It is not a prompt.
    """
    match prompt:
        case None:
            return prompts.CollaborationPrompt(style="none")
        case CollaborationPrompt():
            return prompt.as_team_prompt()
        case prompts.CollaborationPrompt():
            return prompt
    raise InvalidRequestError(
        f"prompt={prompt!r:.80} is no prompt: give a CollaborationPrompt, or None to add nothing "
        "to the messages; your own instructions go into a system message."
    )


def conversation(problem: Any) -> list[BaseMessage]:
    """A question, a message, messages or a prompt value as messages.

    Raises:
        InvalidMessageError: It is none of these, or it is empty.
    """
    try:
        messages = convert_to_messages(
            [problem] if isinstance(problem, str | dict | BaseMessage) else problem
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InvalidMessageError(
            f"The problem {problem!r:.80} is no conversation: give a question, or messages such as "
            "('human', 'How many primes are there below 100?')."
        ) from error
    if not any(message.content and str(message.content).strip() for message in messages):
        raise InvalidMessageError(
            f"The problem {problem!r:.80} is empty: say what the team is to solve."
        )
    return messages
