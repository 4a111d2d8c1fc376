"""Structured output: a chat model whose replies fit a schema, and the parser for them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
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
from hogwild_agents.langchain.reply_format import parse_reply_format, parse_tool

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured_output(
    model: BaseChatModel,
    schema: dict[str, Any] | type,
    *,
    method: Method,
    include_raw: bool,
    strict: bool | None,
    **kwargs: Any,
) -> Runnable[LanguageModelInput, Any]:
    """As `ChatHogwild.with_structured_output`."""
    _check_arguments(schema, method)
    pydantic_class: Any = (
        schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
    )
    tracing = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
    bound: Runnable[LanguageModelInput, Any]
    parser: BaseOutputParser[Any]
    if method == "function_calling":
        named = {"title": "reply", **schema} if isinstance(schema, Mapping) else schema
        tool = parse_tool(named, strict)
        name = tool["function"]["name"]
        bound = model.bind_tools(
            [dict(tool)], tool_choice=name, ls_structured_output_format=tracing, **kwargs
        )
        parser = (
            PydanticToolsParser(tools=[pydantic_class], first_tool_only=True)
            if pydantic_class
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    else:
        response_format = _response_format(_json_schema(schema), method, strict)
        parse_reply_format(response_format=response_format)
        bound = model.bind(
            response_format=response_format, ls_structured_output_format=tracing, **kwargs
        )
        parser = (
            PydanticOutputParser(pydantic_object=pydantic_class)
            if pydantic_class
            else JsonOutputParser()
        )
    parse: Runnable[Any, Any] = RunnableGenerator(_refuse_cut, _arefuse_cut) | parser
    if not include_raw:
        return bound | parse
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parse, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _check_arguments(schema: object, method: str) -> None:
    """Checks the arguments' kinds.

    Raises:
        InvalidRequestError: There is no such method, or the schema is not one.
    """
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


def _response_format(schema: dict[str, Any], method: Method, strict: bool | None) -> dict[str, Any]:
    """The `response_format` that asks for a schema."""
    if method == "json_mode":
        return {"type": "json_object", "schema": schema}
    named: dict[str, Any] = {"name": "reply", "schema": schema}
    if strict is not None:
        named["strict"] = strict
    return {"type": "json_schema", "json_schema": named}


def _refuse_cut(chunks: Iterator[AIMessage]) -> Iterator[AIMessage]:
    """Passes a message or its chunks on; raises at the end if the message was cut."""
    passed = []
    for chunk in chunks:
        passed.append(chunk)
        yield chunk
    _check_complete(passed)


async def _arefuse_cut(chunks: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    """As `_refuse_cut`."""
    passed = []
    async for chunk in chunks:
        passed.append(chunk)
        yield chunk
    _check_complete(passed)


def _check_complete(chunks: Sequence[AIMessage]) -> None:
    """Refuses a message that was cut; LangChain's parsers would accept half an object.

    Raises:
        OutputParserException: It was cut.
    """
    message: Any = chunks[0]
    if isinstance(message, AIMessageChunk) and len(chunks) > 1:
        message += chunks[1:]
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
    """Whether a text is complete JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _json_schema(schema: Mapping[str, Any] | type) -> dict[str, Any]:
    """The JSON schema of a class, a tool or a schema."""
    if isinstance(schema, type):
        if issubclass(schema, BaseModel):
            return schema.model_json_schema()
        return convert_to_json_schema(schema)
    if "function" in schema or ("name" in schema and "parameters" in schema):  # a tool
        return convert_to_json_schema(dict(schema))
    return dict(schema)
