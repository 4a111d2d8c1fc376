"""From a team's unfinished work to an answer."""

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
    """What an `EarlyFinisher` takes.

    Attributes:
        problem: The question, or the conversation.
        partial: What came of it: a message, a result, a snapshot or a text.
    """

    problem: str | list[AnyMessage]
    partial: AIMessage | Result | Snapshot | str


class EarlyFinisher(HogwildRunnable):
    """From a problem and what a team had when it was stopped to an answer.

    An answer that has been stated already is returned without asking anybody. That of a result or a
    snapshot counts as it was found, so give the format of that team.

    Attributes:
        model: Who is asked else: any chat model, or another runnable from messages to a message.
        answer: How the answer looks: a format as in `FinalAnswer`, or one with its fallbacks.

    Raises:
        InvalidAnswerFormatError: There is no such format.
        InvalidMessageError: It was given no problem, or nothing to start from.
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
        """What it takes."""
        return Unfinished

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """What it gives."""
        return self.answer.OutputType

    def _run(self, given: Any, **options: Any) -> Any:
        """The answer; `options` are for the model."""
        answer, messages = self._look(given)
        if answer is not None:
            return answer
        return self.answer.invoke(self.model.invoke(messages, **options))

    async def _arun(self, given: Any, **options: Any) -> Any:
        answer, messages = await run_in_executor(None, self._look, given)
        if answer is not None:
            return answer
        return await self.answer.ainvoke(await self.model.ainvoke(messages, **options))

    def _look(self, given: Any) -> tuple[Any, list[BaseMessage]]:
        """The answer, if there is one already; and what to ask the model if there is not."""
        if not isinstance(given, dict) or not {"problem", "partial"} <= given.keys():
            raise InvalidMessageError(
                f"{given!r:.80} is nothing to finish: give a dict with problem and partial."
            )
        kind = format_of(self.answer.format)
        answer, thoughts = _work(given["partial"], kind)
        ask = HumanMessage(_TIME_IS_UP.format(answer=kind.instruction))
        so_far = [AIMessage(thoughts)] if thoughts.strip() else []
        return answer, [*conversation(given["problem"]), *so_far, ask]


def _work(partial: Any, kind: AnswerFormat) -> tuple[Any, str]:
    """The answer that was stated in unfinished work, or None, and all of that work as text."""
    match partial:
        case str():
            return kind.find(partial), partial
        case Snapshot(answer=answer, text=text):
            return answer, text
        case Result(answer=answer, reply=reply):
            steps = [*partial.steps, *partial.unfinished]
            for text in (reply, *(step.written for step in reversed(steps))):
                answer = kind.find(text) if answer is None else answer
            return answer, SEPARATOR.join(filter(None, (partial.transcript().strip(), reply)))
        case BaseMessage():
            said = [f"**{who}:** {text}" if who else text for who, text in thoughts_of(partial)]
            texts = [text.strip() for text in (*said, str(partial.text)) if text.strip()]
            return answer_in(partial, kind, kind.find), SEPARATOR.join(texts)
    raise InvalidMessageError(
        f"{partial!r:.80} is no partial result: give a message of a chat model, a Result, a "
        "Snapshot or a text."
    )
