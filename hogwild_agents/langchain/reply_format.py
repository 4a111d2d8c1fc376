"""What a reply must look like, from a call's `tools`, `tool_choice` and `response_format`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from hogwild_agents.constrained.grammars import Grammar, GrammarCompiler, ToolSchema, analyze_schema
from hogwild_agents.constrained.json_schema import subschemas
from hogwild_agents.errors import GrammarError
from hogwild_agents.langchain.errors import InvalidRequestError
from hogwild_agents.team.prompts import STRUCTURE
from hogwild_agents.team.tool_format import ToolCallFormat

_TOOL_NAME = re.compile(r"[\w.:/-]{1,64}", re.ASCII)
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "properties": {}}
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

_FIRST_KEYS = ("description", "type", "properties", "required")
"""Keys of a schema that the model reads first."""
_HIDDEN_KEYS = frozenset({"title", "$schema", "additionalProperties", "strict"})
"""Keys of a schema that tell the model nothing."""
_ANNOTATIONS = frozenset({"title", "description", "default"})
"""Keys of a schema that do not restrict a value."""


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """What a reply must look like.

    Attributes:
        tools: The tools that the model is shown, in the form that chat templates take.
        callable: Names of the tools that this reply may call.
        forced: Whether the reply must call a tool.
        several: Whether it may call several.
        schema: The JSON schema for a reply that calls no tool; None for free text.
        show_schema: Whether the model is shown the schema, too.
    """

    tools: tuple[Mapping[str, Any], ...] = ()
    callable: tuple[str, ...] = ()
    forced: bool = False
    several: bool = True
    schema: Mapping[str, Any] | None = None
    show_schema: bool = True

    @property
    def free(self) -> bool:
        """Whether any text will do."""
        return not self.callable and self.schema is None

    @property
    def begins_free(self) -> bool:
        """Whether a reply may begin with free text, or consist of it."""
        return self.schema is None and not self.forced

    @property
    def instruction(self) -> str:
        """The text that shows the model the schema; empty if there is nothing to show."""
        if self.schema is None or not self.show_schema:
            return ""
        return STRUCTURE + json.dumps(_essence(self.schema), ensure_ascii=False)

    def grammar(self, compiler: GrammarCompiler, tool_format: ToolCallFormat) -> Grammar:
        """A grammar for such replies.

        Raises:
            GrammarError: No grammar can express the format.
            InvalidRequestError: Two tools have the same name.
        """
        names = [tool["function"]["name"] for tool in self.tools]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate is not None:
            raise InvalidRequestError(f"Two tools are called {duplicate!r}: rename one of them.")
        if not self.callable:
            assert self.schema is not None
            return compiler.compile_schema(self.schema)
        return compiler.compile_calls(
            self._callable_tools,
            tool_format,
            forced=self.forced,
            several=self.several,
            schema=self.schema,
        )

    def check(self) -> None:
        """Checks that grammars can express all schemas; needs no model.

        Raises:
            InvalidRequestError: A schema cannot be expressed, or no finite value fits it.
        """
        schemas = [(f"The tool {tool.name!r}: ", tool.arguments) for tool in self._callable_tools]
        schemas += [] if self.schema is None else [("", self.schema)]
        for place, schema in schemas:
            try:
                analyze_schema(schema)
            except GrammarError as error:
                raise InvalidRequestError(f"{place}{error}") from error

    @property
    def _callable_tools(self) -> list[ToolSchema]:
        functions = [tool["function"] for tool in self.tools]
        return [
            ToolSchema(function["name"], function.get("parameters") or _NO_ARGUMENTS)
            for function in functions
            if function["name"] in self.callable
        ]


def parse_reply_format(
    tools: Sequence[Any] | None = None,
    tool_choice: Any = None,
    response_format: Any = None,
    parallel_tool_calls: bool | None = None,
) -> ReplyFormat:
    """The format that the arguments of a call ask for.

    Raises:
        InvalidRequestError: The arguments make no sense, contradict one another, or ask for a
            format that no grammar can express.
    """
    shown = tuple(map(parse_tool, tools or ()))
    names = tuple(tool["function"]["name"] for tool in shown)
    choice = _parse_choice(tool_choice, names)
    schema, show_schema = _parse_schema(response_format)
    if choice == "none":
        reply_format = ReplyFormat(schema=schema, show_schema=show_schema)
    else:
        forced, named = choice != "auto", isinstance(choice, _Named)
        reply_format = ReplyFormat(
            tools=shown,
            callable=(choice.name,) if isinstance(choice, _Named) else names,
            forced=forced,
            several=parallel_tool_calls is not False and not named,
            schema=None if forced else schema,
            show_schema=show_schema,
        )
    reply_format.check()
    return reply_format


def parse_tool(tool: Any, strict: bool | None = None) -> Mapping[str, Any]:
    """A tool in the form that chat templates take.

    Raises:
        InvalidRequestError: It is not a tool, or its name is not allowed.
    """
    shown: Mapping[str, Any] = {}
    with suppress(ValueError, TypeError):  # a tool that cannot be converted is refused below
        shown = convert_to_openai_tool(tool, strict=strict)
    function = shown.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{tool!r:.120} cannot be called: give a function with a name of 1 to 64 letters, "
            "digits and the signs _ - . : /"
        )
    converted: Mapping[str, Any] = shown["function"]
    schema = _pydantic_schema(tool)
    if schema is None or _empty_parts(schema) >= _empty_parts(converted.get("parameters")):
        return shown
    return {**shown, "function": {**converted, "parameters": schema}}


def _pydantic_schema(tool: Any) -> dict[str, Any] | None:
    """The schema of a tool's pydantic class, if it has one."""
    kind = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return None
    schema = kind.model_json_schema()
    if "$ref" in schema:  # the class contains itself: its schema is one of its definitions
        schema |= schema["$defs"][schema.pop("$ref").rpartition("/")[2]]
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _empty_parts(schema: Any) -> int:
    """How many parts of a schema allow anything; LangChain leaves such parts for recursion."""
    parts = [part for _, part in subschemas(schema)]
    return sum(isinstance(part, Mapping) and _ANNOTATIONS.issuperset(part) for part in parts)


@dataclass(frozen=True, slots=True)
class _Named:
    """The choice of one tool."""

    name: str


def _parse_choice(choice: Any, names: Sequence[str]) -> Literal["auto", "any", "none"] | _Named:
    """The meaning of `tool_choice`, in any spelling that providers use."""
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        if isinstance(function, Mapping):
            choice = function.get("name", choice.get("type"))
    if choice is None or choice is False or choice == "auto":
        return "auto" if names else "none"
    if choice == "none":
        return "none"
    if not names:
        raise InvalidRequestError(
            f"tool_choice={choice!r} but there are no tools: bind some, or leave it out."
        )
    if choice is True or choice in ("any", "required"):
        return "any"
    if not isinstance(choice, str) or choice not in names:
        raise InvalidRequestError(
            f"tool_choice={choice!r} names no tool: choose from {', '.join(names)}, 'auto', 'any' "
            "or 'none'."
        )
    return _Named(choice)


def _parse_schema(response_format: Any) -> tuple[Mapping[str, Any] | None, bool]:
    """The JSON schema that `response_format` asks for, and whether to show it to the model."""
    match response_format:
        case None | {"type": "text"}:
            return None, False
        case {"type": "json_schema", "json_schema": {"schema": Mapping() as schema}}:
            return schema, True
        case {"type": "json_object", "schema": Mapping() as schema}:
            return schema, False
        case {"type": "json_object"}:
            return _ANY_OBJECT, True
    raise InvalidRequestError(
        f"response_format={response_format!r:.200} is not understood: give {{'type': "
        "'json_object'} or {'type': 'json_schema', 'json_schema': {'name': ..., 'schema': ...}}, "
        "or use with_structured_output."
    )


def _essence(schema: Any) -> Any:
    """A schema without keys that tell the model nothing, and in a fixed order.

    Names of properties stay as they are.
    """
    if isinstance(schema, list):
        return [_essence(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    essence = {
        key: {name: _essence(part) for name, part in value.items()}
        if key in ("properties", "$defs") and isinstance(value, Mapping)
        else _essence(value)
        for key, value in schema.items()
        if key not in _HIDDEN_KEYS
    }
    return {key: essence[key] for key in (*_FIRST_KEYS, *essence) if key in essence}
