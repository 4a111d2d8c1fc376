"""Structured output: a chat model whose replies fit a schema, and what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, get_args

from langchain_core.language_models import LanguageModelInput
from langchain_core.output_parsers import (
    BaseOutputParser,
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel
from typing_extensions import is_typeddict

from hogwild_agents.errors import InvalidRequestError

if TYPE_CHECKING:
    from hogwild_agents.chat_models import ChatHogwild

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
        tool = convert_to_openai_tool(named, strict=strict)
        name = tool["function"]["name"]
        bound = model.bind_tools(
            [tool], tool_choice=name, ls_structured_output_format=told, **kwargs
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
        bound = model.bind(response_format=asked, ls_structured_output_format=told, **kwargs)
        parser = PydanticOutputParser(pydantic_object=kind) if kind else JsonOutputParser()
    if not include_raw:
        return bound | parser
    read = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    unread = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | read.with_fallbacks([unread], exception_key="parsing_error")


def _json_schema(schema: Mapping[str, Any] | type) -> dict[str, Any]:
    """A schema as it is, or of a class."""
    if isinstance(schema, type):
        if issubclass(schema, BaseModel):
            return schema.model_json_schema()
        return convert_to_json_schema(schema)
    if "function" in schema or ("name" in schema and "parameters" in schema):  # a tool's
        return convert_to_json_schema(dict(schema))
    return dict(schema)
