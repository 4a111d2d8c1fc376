"""From a model's reply to a typed answer."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from langchain_core.messages import AnyMessage, BaseMessage
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import Runnable
from langchain_core.runnables.config import run_in_executor
from pydantic import BaseModel

import hogwild_agents.langchain.messages  # noqa: F401  # teaches messages what their blocks are
from hogwild_agents.errors import InvalidMessageError
from hogwild_agents.langchain.errors import NoAnswerError
from hogwild_agents.langchain.runnables.base import HogwildRunnable
from hogwild_agents.team.answers import AnswerFormat, answer_format, json_answer, pattern

_TYPES: dict[str, Any] = {"boxed": str, "number": int | float, "choice": str, "code": str}
_UNNAMED = ("custom", "pattern")
"""Names that formats share which have nothing else in common."""


def format_of(given: Any) -> AnswerFormat:
    """The format that is meant: as `answer_format`, and of a pydantic class or compiled pattern.

    Raises:
        InvalidAnswerFormatError: There is none such.
    """
    if isinstance(given, re.Pattern):
        return pattern(given)
    if inspect.isclass(given) and issubclass(given, BaseModel):
        return _structure(given)
    return answer_format(given)


def _structure(kind: type[BaseModel]) -> AnswerFormat:
    """The last JSON in a text that fits a pydantic class, as an instance of it."""
    fitting = json_answer(lambda value: kind.model_validate_json(json.dumps(value)))
    instruction = f"{fitting.instruction} and fits this schema: {_schema(kind)}"
    return replace(fitting, name=kind.__name__, instruction=instruction, max_tokens=256)


def _schema(kind: type[BaseModel]) -> str:
    return json.dumps(kind.model_json_schema(), ensure_ascii=False)


def thoughts_of(message: BaseMessage) -> list[tuple[str, str]]:
    """What each worker thought, after its name; another model's reasoning stands after no name."""
    return [
        (block.get("extras", {}).get("worker", ""), block["reasoning"])
        for block in message.content_blocks
        if block["type"] == "reasoning" and block.get("reasoning")
    ]


def answer_in(message: BaseMessage, kind: AnswerFormat, read: Callable[[str], Any]) -> Any:
    """The answer that a message holds, or None.

    It stands in the reply, as `read` finds it; or else in the metadata, if they are about the same
    format; or else in the thoughts, where nothing but an answer stated by the rule counts.
    """
    answer = read(message.text)
    metadata = message.response_metadata
    if answer is None and kind.name not in _UNNAMED:
        named = metadata.get("answer_format", "boxed") == kind.name
        answer = metadata.get("answer") if named else None
    for _, thought in thoughts_of(message):
        answer = kind.find(thought) if answer is None else answer
    return answer


class FinalAnswer(HogwildRunnable, BaseOutputParser[Any]):
    r"""From a message, a text or generations to the final answer that stands in it.

    It goes behind any chat model. In a message of `ChatHogwild`'s it looks at the reply, then at
    what the team itself found, then at the workers' thoughts.

    Attributes:
        format: How the answer looks: `boxed`, `number`, `choice`, `json`, `code`, an
            `AnswerFormat`, a function from a text to the answer or None, a pydantic class (the last
            JSON that fits it), or a compiled pattern (its last match: the group "answer", else
            the first group, else all of it).
        fallback: What is tried in turn if there is none: other formats, and runnables from the text
            to an answer or None, such as a chain that asks a model.
        strict: Whether it is an error if nothing is found, instead of None.

    Raises:
        InvalidAnswerFormatError: There is no such format.
        InvalidMessageError: It was given something without text.
        NoAnswerError: There is no answer, and it is strict.

    Example:
        model | FinalAnswer("number", fallback=[re.compile(r"total of (\w+)")], strict=True)
    """

    run_type: ClassVar[str | None] = "parser"

    format: Any = "boxed"
    fallback: tuple[Runnable[Any, Any], ...] = ()
    strict: bool = False

    def __init__(
        self,
        format: Any = "boxed",  # noqa: A002
        *,
        fallback: Any = (),
        strict: bool = False,
        name: str | None = None,
    ) -> None:
        format_of(format)
        several = isinstance(fallback, Sequence) and not isinstance(fallback, str)
        others = [
            other if isinstance(other, Runnable) else FinalAnswer(other)
            for other in (fallback if several else [fallback])
        ]
        super().__init__(format=format, fallback=tuple(others), strict=strict, name=name)

    def __repr_args__(self) -> Any:
        """Its fields, without addresses in memory."""
        for field, value in super().__repr_args__():
            if field == "format":
                named = isinstance(value, AnswerFormat)
                value = value.name if named else getattr(value, "__name__", value)
            yield field, value

    @property
    def InputType(self) -> Any:  # noqa: N802
        """What it takes."""
        return str | AnyMessage

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """What it gives."""
        structured = inspect.isclass(self.format) and issubclass(self.format, BaseModel)
        kind = self.format if structured else _TYPES.get(str(self.format))
        if kind is None or self.fallback:
            return Any
        return kind if self.strict else kind | None

    @property
    def _type(self) -> str:
        return "final_answer"

    def get_format_instructions(self) -> str:
        """What to tell a model."""
        return f"State the final answer as {format_of(self.format).instruction}."

    def _run(self, given: Any, **_: Any) -> Any:
        return self.parse_result(_generations(given))

    async def _arun(self, given: Any, **_: Any) -> Any:
        return await self.aparse_result(_generations(given))

    def parse(self, text: str) -> Any:
        """The answer in a text."""
        return self.parse_result([Generation(text=text)])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The answer in the first of several generations."""
        given = _first(result)
        answer = self._read(given)
        for other in self.fallback:
            if answer is None:
                answer = other.invoke(given if isinstance(other, FinalAnswer) else _text(given))
        return self._checked(answer, given, partial)

    async def aparse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """As `parse_result`."""
        given = _first(result)
        answer = await run_in_executor(None, self._read, given)
        for other in self.fallback:
            if answer is None:
                text = given if isinstance(other, FinalAnswer) else _text(given)
                answer = await other.ainvoke(text)
        return self._checked(answer, given, partial)

    def _read(self, given: str | BaseMessage) -> Any:
        kind = format_of(self.format)
        if isinstance(given, str):
            return kind.extract(given)
        return answer_in(given, kind, kind.extract)

    def _checked(self, answer: Any, given: str | BaseMessage, partial: bool) -> Any:
        if answer is not None or partial or not self.strict:
            return answer
        text = _text(given)
        raise NoAnswerError(
            f"There is no answer as {format_of(self.format).name!r} in the text that ends with "
            f"{text[-80:]!r}. Give the team a larger budget, a fallback, or strict=False.",
            llm_output=text,
        )


def _generations(given: Any) -> list[Generation]:
    """What a parser takes, of whatever it was given."""
    if isinstance(given, str):
        return [Generation(text=given)]
    if isinstance(given, BaseMessage):
        return [ChatGeneration(message=given)]
    if isinstance(given, list) and given and all(isinstance(one, Generation) for one in given):
        return given
    raise InvalidMessageError(
        f"There can be no answer in {given!r:.80}, which is of type {type(given).__name__}: "
        "give a text, a message, or a list of generations."
    )


def _first(result: list[Generation]) -> str | BaseMessage:
    first = result[0]
    return first.message if isinstance(first, ChatGeneration) else first.text


def _text(given: str | BaseMessage) -> str:
    """A text, or a message's reply; the thoughts if there is no reply."""
    if isinstance(given, str):
        return given
    return str(given.text) or "\n\n".join(thought for _, thought in thoughts_of(given))
