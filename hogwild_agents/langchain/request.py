"""Forms: what a reply must look like, from tools, a choice among them, and a schema."""

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

_NAME = re.compile(r"[\w.:/-]{1,64}", re.ASCII)
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}

_FIRST = ("description", "type", "properties", "required")
_UNTOLD = frozenset({"title", "$schema", "additionalProperties", "strict"})
"""Keys of a schema that tell a model nothing."""
_SILENT = frozenset({"title", "description", "default"})
"""Keys of a schema that allow anything."""


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """What a reply must look like.

    Attributes:
        tools: What the model is told that it may call, as chat templates take it.
        callable: Names of those that this reply may call.
        forced: Whether it must call one.
        several: Whether it may call several.
        schema: What a reply without a call must fit, or None for free text.
        tells: Whether the model is told the schema, too.
    """

    tools: tuple[Mapping[str, Any], ...] = ()
    callable: tuple[str, ...] = ()
    forced: bool = False
    several: bool = True
    schema: Mapping[str, Any] | None = None
    tells: bool = True

    @property
    def free(self) -> bool:
        """Whether a reply may be anything."""
        return not self.callable and self.schema is None

    @property
    def begins_free(self) -> bool:
        """Whether a reply may begin with free text, or be all that."""
        return self.schema is None and not self.forced

    @property
    def told(self) -> str:
        """What the model is told of the schema."""
        if self.schema is None or not self.tells:
            return ""
        return STRUCTURE + json.dumps(_essence(self.schema), ensure_ascii=False)

    def grammar(self, compiler: GrammarCompiler, calls: ToolCallFormat) -> Grammar:
        """The form as a grammar.

        Raises:
            GrammarError: No grammar can express it.
            InvalidRequestError: Two tools have one name.
        """
        names = [tool["function"]["name"] for tool in self.tools]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidRequestError(f"Two tools are called {twice!r}: rename one of them.")
        if not self.callable:
            assert self.schema is not None
            return compiler.compile_schema(self.schema)
        return compiler.compile_calls(
            self._tools, calls, forced=self.forced, several=self.several, schema=self.schema
        )

    def check(self) -> None:
        """Looks whether grammars can hold all schemas; needs no model.

        Raises:
            InvalidRequestError: One cannot be held, or nothing fits it that ever ends.
        """
        named = [(f"The tool {tool.name!r}: ", tool.arguments) for tool in self._tools]
        named += [] if self.schema is None else [("", self.schema)]
        for name, schema in named:
            try:
                analyze_schema(schema)
            except GrammarError as error:
                raise InvalidRequestError(f"{name}{error}") from error

    @property
    def _tools(self) -> list[ToolSchema]:
        """Those that this reply may call."""
        return [
            ToolSchema(
                given["name"], given.get("parameters") or {"type": "object", "properties": {}}
            )
            for given in (tool["function"] for tool in self.tools)
            if given["name"] in self.callable
        ]


def form_of(
    tools: Sequence[Any] | None = None,
    tool_choice: Any = None,
    response_format: Any = None,
    parallel_tool_calls: bool | None = None,
) -> ReplyFormat:
    """The form that the arguments of a call ask for.

    Raises:
        InvalidRequestError: They make no sense, contradict one another, or ask for what no grammar
            can hold.
    """
    given = tuple(map(described, tools or ()))
    names = tuple(tool["function"]["name"] for tool in given)
    choice = _choice(tool_choice, names)
    schema, tells = _schema(response_format)
    if choice == "none":
        form = ReplyFormat(schema=schema, tells=tells)
        form.check()
        return form
    forced = choice != "auto"
    called = (choice.name,) if isinstance(choice, _Named) else names
    several = parallel_tool_calls is not False and not isinstance(choice, _Named)
    form = ReplyFormat(given, called, forced, several, None if forced else schema, tells)
    form.check()
    return form


def described(tool: Any, strict: bool | None = None) -> Mapping[str, Any]:
    """A tool as chat templates take it.

    Raises:
        InvalidRequestError: It is none, or has no fit name.
    """
    shown: Mapping[str, Any] = {}
    with suppress(ValueError, TypeError):  # what cannot be converted has no name either
        shown = convert_to_openai_tool(tool, strict=strict)
    function = shown.get("function")
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{tool!r:.120} cannot be called: give a function with a name of 1 to 64 letters, "
            "digits and the signs _ - . : /"
        )
    own = _own_schema(tool)
    known: Mapping[str, Any] = shown["function"]
    if own is None or _empty_parts(own) >= _empty_parts(known.get("parameters")):
        return shown
    return {**shown, "function": {**known, "parameters": own}}


def _own_schema(tool: Any) -> dict[str, Any] | None:
    """The schema of a tool's pydantic class, if it has one."""
    kind = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return None
    own = kind.model_json_schema()
    if "$ref" in own:  # the class holds itself: its schema is one of its definitions
        own |= own["$defs"][own.pop("$ref").rpartition("/")[2]]
    return {key: value for key, value in own.items() if key not in ("title", "description")}


def _empty_parts(schema: Any) -> int:
    """How many parts of a schema say nothing: LangChain leaves them where a class holds itself."""
    parts = [part for _, part in subschemas(schema)]
    return sum(isinstance(part, Mapping) and _SILENT.issuperset(part) for part in parts)


@dataclass(frozen=True, slots=True)
class _Named:
    """The choice of one tool."""

    name: str


def _choice(given: Any, names: Sequence[str]) -> Literal["auto", "any", "none"] | _Named:
    """What `tool_choice` means, in any of the ways in which providers spell it."""
    if isinstance(given, Mapping):
        function = given.get("function", given)
        given = function.get("name", given.get("type")) if isinstance(function, Mapping) else given
    if given is None or given is False or given == "auto":
        return "auto" if names else "none"
    if given == "none":
        return "none"
    if not names:
        raise InvalidRequestError(
            f"tool_choice={given!r} but there are no tools: bind some, or leave it out."
        )
    if given is True or given in ("any", "required"):
        return "any"
    if not isinstance(given, str) or given not in names:
        raise InvalidRequestError(
            f"tool_choice={given!r} names no tool: choose from {', '.join(names)}, 'auto', 'any' "
            "or 'none'."
        )
    return _Named(given)


def _schema(response_format: Any) -> tuple[Mapping[str, Any] | None, bool]:
    """The JSON schema that `response_format` asks for, and whether the model is told of it."""
    match response_format:
        case None | {"type": "text"}:
            return None, False
        case {"type": "json_schema", "json_schema": {"schema": Mapping() as schema}}:
            return schema, True
        case {"type": "json_object", "schema": Mapping() as schema}:
            return schema, False
        case {"type": "json_object"}:
            return ANY_OBJECT, True
    raise InvalidRequestError(
        f"response_format={response_format!r:.200} is not understood: give {{'type': "
        "'json_object'} or {'type': 'json_schema', 'json_schema': {'name': ..., 'schema': ...}}, "
        "or use with_structured_output."
    )


def _essence(schema: Any) -> Any:
    """A schema without what tells a model nothing, in one order whoever wrote it.

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
        if key not in _UNTOLD
    }
    return {key: essence[key] for key in (*_FIRST, *essence) if key in essence}
