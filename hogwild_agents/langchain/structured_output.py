"""Structured output: a chat model whose replies fit a schema, and what reads them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import (
    BaseOutputParser,
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.runnables import (
    Runnable,
    RunnableGenerator,
    RunnableMap,
    RunnablePassthrough,
)
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel
from typing_extensions import is_typeddict

from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.langchain.request import described, form_of

if TYPE_CHECKING:
    from hogwild_agents.langchain.chat_models import ChatHogwild

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured_output(
    model: ChatHogwild,
    schema: dict[str, Any] | type,
    *,
    method: Method,
    include_raw: bool,
    strict: bool | None,
    **kwargs: Any,
) -> Runnable[LanguageModelInput, Any]:
    """As `ChatHogwild.with_structured_output`."""
    if method not in get_args(Method):
        raise InvalidRequestError(
            f"method={method!r} does not exist: choose from {', '.join(get_args(Method))}."
        )
    is_class = isinstance(schema, type) and (is_basemodel_subclass(schema) or is_typeddict(schema))
    if not is_class and not isinstance(schema, Mapping):
        raise InvalidRequestError(
            f"schema={schema!r:.80} is no schema: give a pydantic class, a TypedDict or a JSON "
            "schema."
        )
    kind: Any = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
    told = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    parser: BaseOutputParser[Any] | Runnable[Any, Any]
    bound: Runnable[LanguageModelInput, Any]
    if method == "function_calling":
        named = {"title": "reply", **schema} if isinstance(schema, Mapping) else schema
        tool = described(named, strict)
        name = tool["function"]["name"]
        bound = model.bind_tools(
            [dict(tool)], tool_choice=name, ls_structured_output_format=told, **kwargs
        )
        parser = (
            PydanticToolsParser(tools=[kind], first_tool_only=True)
            if kind
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    else:
        wanted: dict[str, Any] = {"name": "reply", "schema": _json_schema(schema)}
        if strict is not None:
            wanted["strict"] = strict
        asked: dict[str, Any] = {"type": "json_schema", "json_schema": wanted}
        if method == "json_mode":
            asked = {"type": "json_object", "schema": wanted["schema"]}
        form_of(response_format=asked)
        bound = model.bind(response_format=asked, ls_structured_output_format=told, **kwargs)
        parser = PydanticOutputParser(pydantic_object=kind) if kind else JsonOutputParser()
    whole: Runnable[Any, Any] = RunnableGenerator(_whole, _whole_later) | parser
    if not include_raw:
        return bound | whole
    read = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | whole, parsing_error=lambda _: None
    )
    unread = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | read.with_fallbacks([unread], exception_key="parsing_error")


def _whole(pieces: Iterator[AIMessage]) -> Iterator[AIMessage]:
    """Passes a message or its pieces on; raises at the end if it is not whole."""
    passed = []
    for piece in pieces:
        passed.append(piece)
        yield piece
    _check(passed)


async def _whole_later(pieces: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    """As `_whole`."""
    passed = []
    async for piece in pieces:
        passed.append(piece)
        yield piece
    _check(passed)


def _check(pieces: Sequence[AIMessage]) -> None:
    """Refuses a message that was cut: LangChain's parsers would make do with what there is.

    Raises:
        OutputParserException: It was cut.
    """
    message: Any = pieces[0]
    if isinstance(message, AIMessageChunk) and len(pieces) > 1:
        message += pieces[1:]
    if message.response_metadata.get("finish_reason") != "length" or _is_json(message.text):
        return
    usage: Any = message.usage_metadata or {}
    tokens = usage.get("output_token_details", {}).get("reply", usage.get("output_tokens"))
    raise OutputParserException(
        f"The reply was cut: max_tokens was reached, and no valid end could be written within "
        f"{tokens} tokens in all. Raise max_tokens, or ask for less.",
        llm_output=message.text,
    )


def _is_json(text: str) -> bool:
    """Whether a text is whole; whole calls of tools have a `finish_reason` of their own."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _json_schema(schema: Mapping[str, Any] | type) -> dict[str, Any]:
    """A schema as it is, or of a class."""
    if isinstance(schema, type):
        if issubclass(schema, BaseModel):
            return schema.model_json_schema()
        return convert_to_json_schema(schema)
    if "function" in schema or ("name" in schema and "parameters" in schema):  # a tool's
        return convert_to_json_schema(dict(schema))
    return dict(schema)
