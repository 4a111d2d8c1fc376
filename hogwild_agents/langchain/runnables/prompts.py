"""From a question to the messages that a team receives."""

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
from hogwild_agents.langchain.runnables.answers import format_of
from hogwild_agents.langchain.runnables.base import HogwildRunnable
from hogwild_agents.names import worker_names
from hogwild_agents.team import prompts
from hogwild_agents.team.prompts import Style
from hogwild_agents.team.steps import SEPARATOR

PROBLEM_KEYS = ("question", "problem", "messages")
"""Under which a dict holds the problem."""


class PromptInput(TypedDict, total=False):
    """A dict that a `CollaborationPrompt` takes: the problem under one key, and other fields."""

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
    """From a question, messages or a dict to the messages that a team receives.

    First comes the system message, which tells the workers how to work together; the system text of
    the conversation itself follows in it. The rest of the conversation is left as it is.

    Attributes:
        workers: How many there are, or their names.
        style: "you", "we", "brief" or "names", as in `team.CollaborationPrompt`.
        examples: Whether worked examples are shown.
        extra: The developer's own instructions.
        layout: What a worker sees.
        answer: How the final answer is to be stated, in any way that `FinalAnswer` takes.

    Raises:
        InvalidTeamError: There can be no such team, or prompt for it.
        InvalidAnswerFormatError: There is no such answer format.
        InvalidMessageError: It was given no problem.

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
        """What it takes."""
        return str | list[AnyMessage] | PromptInput

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """What it gives."""
        return list[AnyMessage]

    def as_team_prompt(self) -> prompts.CollaborationPrompt:
        """The part that a `Team` takes as its prompt: it knows workers, layout and answer."""
        return prompts.CollaborationPrompt(
            style=self.style, examples=self.examples, extra=self.extra
        )

    def _run(self, given: Any, **fields: Any) -> list[BaseMessage]:
        """The messages; `fields` are others for this time."""
        if isinstance(given, Mapping):
            given, fields = self._unpacked({**given, **fields})
        told = self.partial(**fields)._told()
        messages = conversation(given)
        own = [message.text for message in messages if isinstance(message, SystemMessage)]
        rest = [message for message in messages if not isinstance(message, SystemMessage)]
        system = SEPARATOR.join(text for text in [told, *own] if text.strip())
        if not system:
            return rest
        # A model that keeps outside text from looking like the system's own may trust this part.
        about = {"text": told, "workers": [*worker_names(self.workers)]}
        return [SystemMessage(system, additional_kwargs={"collaboration": about}), *rest]

    def _unpacked(self, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The problem in a dict, and the fields beside it."""
        problems = [given.pop(key) for key in PROBLEM_KEYS if key in given]
        unknown = [key for key in given if key not in type(self).model_fields]
        if len(problems) == 1 and not unknown:
            return problems[0], given
        fault = f"the unknown key {unknown[0]!r}" if unknown else f"{len(problems)} problems"
        raise InvalidMessageError(
            f"The dict for {self.get_name()} holds {fault}: give the problem under one of "
            f"{', '.join(PROBLEM_KEYS)}, and beside it only {', '.join(type(self).model_fields)}."
        )

    def _told(self) -> str:
        return self.as_team_prompt().system(
            worker_names(self.workers),
            layout=self.layout,
            answer=format_of(self.answer).instruction,
        )


def conversation(given: Any) -> list[BaseMessage]:
    """A question, a message, messages or a prompt value as messages.

    Raises:
        InvalidMessageError: It is none of these, or there is nothing in it.
    """
    try:
        messages = convert_to_messages(
            [given] if isinstance(given, str | dict | BaseMessage) else given
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InvalidMessageError(
            f"The problem {given!r:.80} is no conversation: give a question, or messages such as "
            "('human', 'How many primes are there below 100?')."
        ) from error
    if not any(message.content and str(message.content).strip() for message in messages):
        raise InvalidMessageError(
            f"The problem {given!r:.80} is empty: say what the team is to solve."
        )
    return messages
