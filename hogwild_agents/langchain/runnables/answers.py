"""The typed answer in a model's reply."""

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

import hogwild_agents.langchain.messages  # noqa: F401  # registers content blocks
from hogwild_agents.errors import InvalidMessageError
from hogwild_agents.langchain.errors import NoAnswerError
from hogwild_agents.langchain.runnables.base import HogwildRunnable
from hogwild_agents.team.answers import AnswerFormat, json_answer, pattern
from hogwild_agents.team.answers import answer_format as choose_format

_TYPES: dict[str, Any] = {"boxed": str, "number": int | float, "choice": str, "code": str}
_SHARED_NAMES = ("custom", "pattern")
"""Names that several different formats have."""


def format_of(value: Any) -> AnswerFormat:
    """The answer format for a pydantic class, a pattern, or anything that `answer_format` takes.

    Raises:
        InvalidAnswerFormatError: There is no such format.
    """
    if isinstance(value, re.Pattern):
        return pattern(value)
    if inspect.isclass(value) and issubclass(value, BaseModel):
        return _pydantic_format(value)
    return choose_format(value)


def _pydantic_format(kind: type[BaseModel]) -> AnswerFormat:
    """A format for the last JSON in a text that fits a pydantic class, as an instance of it."""
    fitting = json_answer(lambda value: kind.model_validate_json(json.dumps(value)))
    schema = json.dumps(kind.model_json_schema(), ensure_ascii=False)
    instruction = f"{fitting.instruction} and fits this schema: {schema}"
    return replace(fitting, name=kind.__name__, instruction=instruction, max_tokens=256)


def thoughts_of(message: BaseMessage) -> list[tuple[str, str]]:
    """Each worker's name and thoughts; the name is empty for another model's reasoning."""
    return [
        (block.get("extras", {}).get("worker", ""), block["reasoning"])
        for block in message.content_blocks
        if block["type"] == "reasoning" and block.get("reasoning")
    ]


def answer_in(message: BaseMessage, answer_format: AnswerFormat, read: Callable[[str], Any]) -> Any:
    """The answer in a message, or None.

    Three places are searched in turn: the reply, with `read`; the metadata, if the team used the
    same format; the thoughts, where only an answer that is stated in this format counts.
    """
    answer = read(message.text)
    metadata = message.response_metadata
    if answer is None and answer_format.name not in _SHARED_NAMES:
        same = metadata.get("answer_format", "boxed") == answer_format.name
        answer = metadata.get("answer") if same else None
    for _, thought in thoughts_of(message):
        answer = answer_format.find(thought) if answer is None else answer
    return answer


class FinalAnswer(HogwildRunnable, BaseOutputParser[Any]):
    r"""Finds the final answer in a message, a text or generations.

    It works after any chat model. In a message of `ChatHogwild` it searches the reply, then the
    answer that the team itself found, then the workers' thoughts.

    Attributes:
        format: How the answer looks: `boxed`, `number`, `choice`, `json`, `code`, an
            `AnswerFormat`, a function from a text to the answer or None, a pydantic class (the last
            JSON that fits it), or a compiled pattern (its last match: the group "answer", else
            the first group, else all of it).
        fallback: Tried in turn if there is no answer: other formats, and runnables from the text to
            an answer or None, such as a chain that asks a model.
        strict: Whether to raise an error if there is no answer, instead of returning None.

    Raises:
        InvalidAnswerFormatError: There is no such format.
        InvalidMessageError: The input has no text.
        NoAnswerError: There is no answer, and `strict` is set.

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
        is_list = isinstance(fallback, Sequence) and not isinstance(fallback, str)
        fallbacks = [
            item if isinstance(item, Runnable) else FinalAnswer(item)
            for item in (fallback if is_list else [fallback])
        ]
        super().__init__(format=format, fallback=tuple(fallbacks), strict=strict, name=name)

    def __repr_args__(self) -> Any:
        """The fields, without memory addresses."""
        for field, value in super().__repr_args__():
            if field == "format":
                named = isinstance(value, AnswerFormat)
                value = value.name if named else getattr(value, "__name__", value)
            yield field, value

    @property
    def InputType(self) -> Any:  # noqa: N802
        """The type of the input."""
        return str | AnyMessage

    @property
    def OutputType(self) -> Any:  # noqa: N802
        """The type of the output."""
        is_pydantic = inspect.isclass(self.format) and issubclass(self.format, BaseModel)
        kind = self.format if is_pydantic else _TYPES.get(str(self.format))
        if kind is None or self.fallback:
            return Any
        return kind if self.strict else kind | None

    @property
    def _type(self) -> str:
        return "final_answer"

    def get_format_instructions(self) -> str:
        """The instruction for a model."""
        return f"State the final answer as {format_of(self.format).instruction}."

    def _run(self, value: Any, /, **_: Any) -> Any:
        return self.parse_result(_generations(value))

    async def _arun(self, value: Any, /, **_: Any) -> Any:
        return await self.aparse_result(_generations(value))

    def parse(self, text: str) -> Any:
        """The answer in a text."""
        return self.parse_result([Generation(text=text)])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The answer in the first of several generations."""
        source = _first(result)
        answer = self._read(source)
        for fallback in self.fallback:
            if answer is None:
                answer = fallback.invoke(_fallback_input(fallback, source))
        return self._check(answer, source, partial)

    async def aparse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """As `parse_result`."""
        source = _first(result)
        answer = await run_in_executor(None, self._read, source)
        for fallback in self.fallback:
            if answer is None:
                answer = await fallback.ainvoke(_fallback_input(fallback, source))
        return self._check(answer, source, partial)

    def _read(self, source: str | BaseMessage) -> Any:
        answer_format = format_of(self.format)
        if isinstance(source, str):
            return answer_format.extract(source)
        return answer_in(source, answer_format, answer_format.extract)

    def _check(self, answer: Any, source: str | BaseMessage, partial: bool) -> Any:
        if answer is not None or partial or not self.strict:
            return answer
        text = _text(source)
        raise NoAnswerError(
            f"There is no answer as {format_of(self.format).name!r} in the text that ends with "
            f"{text[-80:]!r}. Give the team a larger budget, a fallback, or strict=False.",
            llm_output=text,
        )


def _generations(value: Any) -> list[Generation]:
    """A text, a message or generations as generations."""
    if isinstance(value, str):
        return [Generation(text=value)]
    if isinstance(value, BaseMessage):
        return [ChatGeneration(message=value)]
    if isinstance(value, list) and value and all(isinstance(item, Generation) for item in value):
        return value
    raise InvalidMessageError(
        f"There can be no answer in {value!r:.80}, which is of type {type(value).__name__}: "
        "give a text, a message, or a list of generations."
    )


def _first(result: list[Generation]) -> str | BaseMessage:
    first = result[0]
    return first.message if isinstance(first, ChatGeneration) else first.text


def _fallback_input(fallback: Runnable[Any, Any], source: str | BaseMessage) -> str | BaseMessage:
    """What a fallback gets: another format searches the whole message, a chain gets its text."""
    return source if isinstance(fallback, FinalAnswer) else _text(source)


def _text(source: str | BaseMessage) -> str:
    """A text, or a message's reply; the thoughts if there is no reply."""
    if isinstance(source, str):
        return source
    return str(source.text) or "\n\n".join(thought for _, thought in thoughts_of(source))
