"""An answer from a team's unfinished work."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import run_in_executor
from typing_extensions import TypedDict

from hogwild_agents.errors import InvalidMessageError
from hogwild_agents.langchain.runnables.answers import (
    FinalAnswer,
    answer_in,
    format_of,
    thoughts_of,
)
from hogwild_agents.langchain.runnables.base import HogwildRunnable
from hogwild_agents.langchain.runnables.prompts import conversation
from hogwild_agents.team.answers import AnswerFormat
from hogwild_agents.team.events import Result, Snapshot
from hogwild_agents.team.steps import SEPARATOR

_TIME_IS_UP = (
    "Time is up. Going by all that has been found so far, state the final answer now, as {answer}."
)


class Unfinished(TypedDict):
    """The input of an `EarlyFinisher`.

    Attributes:
        problem: The question, or the conversation.
        partial: The partial result: a message, a result, a snapshot or a text.
    """

    problem: str | list[AnyMessage]
    partial: AIMessage | Result | Snapshot | str


class EarlyFinisher(HogwildRunnable):
    """Turns a problem and a team's partial result into an answer.

    If the partial result states an answer, that is returned and no model is asked. The answer of a
    result or a snapshot is in its team's format, so use the same format here.

    Attributes:
        model: Asked otherwise: any chat model, or another runnable from messages to a message.
        answer: How the answer looks: a format as in `FinalAnswer`, or a `FinalAnswer`.

    Raises:
        InvalidAnswerFormatError: There is no such format.
        InvalidMessageError: The input has no problem, or no partial result.
        NoAnswerError: There is no answer, and `answer` is strict.

    Example:
        thought = RunnableParallel(problem=RunnablePassthrough(), partial=ChatHogwild(budget=64))
        chain = thought | EarlyFinisher(ChatHogwild(workers=1), answer="number")
    """

    model: Runnable[Any, Any]
    answer: FinalAnswer

    def __init__(
        self, model: Runnable[Any, Any], *, answer: Any = "boxed", name: str | None = None
    ) -> None:
        final = answer if isinstance(answer, FinalAnswer) else FinalAnswer(answer)
        super().__init__(model=model, answer=final, name=name)

    @property
    def InputType(self) -> Any:  # noqa: N802
        """The type of the input."""
        return Unfinished

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """The type of the output."""
        return self.answer.OutputType

    def _run(self, value: Any, /, **options: Any) -> Any:
        """The answer; `options` are for the model."""
        answer, messages = self._examine(value)
        if answer is not None:
            return answer
        return self.answer.invoke(self.model.invoke(messages, **options))

    async def _arun(self, value: Any, /, **options: Any) -> Any:
        answer, messages = await run_in_executor(None, self._examine, value)
        if answer is not None:
            return answer
        return await self.answer.ainvoke(await self.model.ainvoke(messages, **options))

    def _examine(self, value: Any) -> tuple[Any, list[BaseMessage]]:
        """The answer, if it is stated already, and the messages for the model otherwise."""
        if not isinstance(value, dict) or not {"problem", "partial"} <= value.keys():
            raise InvalidMessageError(
                f"{value!r:.80} is nothing to finish: give a dict with problem and partial."
            )
        answer_format = format_of(self.answer.format)
        answer, work = _examine_partial(value["partial"], answer_format)
        question = HumanMessage(_TIME_IS_UP.format(answer=answer_format.instruction))
        thoughts = [AIMessage(work)] if work.strip() else []
        return answer, [*conversation(value["problem"]), *thoughts, question]


def _examine_partial(partial: Any, answer_format: AnswerFormat) -> tuple[Any, str]:
    """The answer that a partial result states, or None, and all of the work as text."""
    match partial:
        case str():
            return answer_format.find(partial), partial
        case Snapshot(answer=answer, text=text):
            return answer, text
        case Result(answer=answer, reply=reply):
            steps = [*partial.steps, *partial.unfinished]
            for text in (reply, *(step.written for step in reversed(steps))):
                answer = answer_format.find(text) if answer is None else answer
            return answer, SEPARATOR.join(filter(None, (partial.transcript().strip(), reply)))
        case BaseMessage():
            thoughts = [
                f"**{name}:** {text}" if name else text for name, text in thoughts_of(partial)
            ]
            texts = [text.strip() for text in (*thoughts, str(partial.text)) if text.strip()]
            return answer_in(partial, answer_format, answer_format.find), SEPARATOR.join(texts)
    raise InvalidMessageError(
        f"{partial!r:.80} is no partial result: give a message of a chat model, a Result, a "
        "Snapshot or a text."
    )
