"""ToolCallFormat: how a model writes tool calls as text, measured from its chat template.

Model families write calls in different ways, between different marks. To find out how, we render a
made-up call with the template: the text around its name and arguments is the format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from hogwild_agents.team.chat_template import Message

_NAMES = ("zqalpha", "zqbravo")
_ARGUMENTS: tuple[dict[str, Any], ...] = ({"zqa": 1, "zqb": 2}, {"zqa": 3, "zqb": 4})
_SEPARATORS = ((", ", ": "), (",", ":"))


class ToolCallFormat(NamedTuple):
    """How a model writes calls: `opening` NAME `between` ARGUMENTS `closing`.

    Attributes:
        opening: Text before a call's name.
        between: Text between the name and the arguments, which are a JSON object.
        closing: Text after the arguments of the last call.
        link: Text between one call's arguments and the next one's name; None if the model makes
            one call at a time.
        separators: JSON separators, between items and between a key and its value.
    """

    opening: str
    between: str
    closing: str
    link: str | None
    separators: tuple[str, str] = _SEPARATORS[0]

    def write(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """The text of calls as the model would write them; each is a name with its arguments."""
        link = self.closing + self.opening if self.link is None else self.link
        texts = [name + self.between + self._json(arguments) for name, arguments in calls]
        return self.opening + link.join(texts) + self.closing if texts else ""

    def _json(self, arguments: Mapping[str, Any]) -> str:
        return json.dumps(arguments, ensure_ascii=False, separators=self.separators)


HERMES = ToolCallFormat(
    opening='<tool_call>\n{"name": "',
    between='", "arguments": ',
    closing="}\n</tool_call>",
    link='}\n</tool_call>\n<tool_call>\n{"name": "',
)
"""The format of Hermes and Qwen (Teknium et al., arXiv 2408.11857), which most models know."""

_TOOL_PROMPT = """\
You can call functions. Where one helps, reply with a call of it:
<tool_call>
{{"name": <name>, "arguments": <JSON object>}}
</tool_call>
Several calls follow one another in the same form. Results come back in <tool_response>.

<tools>
{tools}
</tools>"""

TOOL_MARKS = tuple(
    f"<{slash}{word}>" for word in ("tool_call", "tool_response", "tools") for slash in ("", "/")
)
"""Marks that outside text must not look like where tools are spelled out."""


def measure_format(render: Callable[..., str], ends: Sequence[str]) -> ToolCallFormat | None:
    """The format of a chat template's calls; None if it has none, or none of this shape.

    Args:
        render: From messages, `tools` and `add_generation_prompt` to text; may raise anything.
        ends: Marks that end a turn.
    """
    attempts = (
        _measure(render, ends, count, with_results) for count in (2, 1) for with_results in (0, 1)
    )
    return next(filter(None, attempts), None)


def _measure(
    render: Callable[..., str], ends: Sequence[str], count: int, with_results: int
) -> ToolCallFormat | None:
    """The format that the template shows for `count` calls in one message."""
    tools = [_tool(name) for name in _NAMES]
    question: list[dict[str, Any]] = [{"role": "user", "content": "zqask"}]
    calls = [
        {"type": "function", "id": f"zqcall{n}00", "function": {"name": name, "arguments": values}}
        for n, (name, values) in enumerate(zip(_NAMES, _ARGUMENTS, strict=True))
    ][:count]
    messages = [*question, {"role": "assistant", "content": "", "tool_calls": calls}]
    if with_results:  # some templates require them
        messages += [
            {"role": "tool", "content": "zqresult", "tool_call_id": c["id"], "name": "zqalpha"}
            for c in calls
        ]
    try:
        before = render(question, tools=tools, add_generation_prompt=True)
        after = render(messages, tools=tools, add_generation_prompt=False)
    except Exception:  # noqa: BLE001  a template is code: it may refuse in any way
        return None
    start = next(
        (n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]),
        min(len(before), len(after)),
    )
    for separators in _SEPARATORS:
        parts = _split(after[start:], count, separators)
        if parts is not None:
            break
    else:
        return None
    opening, *betweens, closing = parts
    closing = closing.split("zqresult")[0]
    cuts = [cut for end in ends if (cut := closing.find(end)) >= 0]
    closing = closing[: min(cuts)] if cuts else closing.rstrip()
    # Empty thoughts, which some templates put before a call, are not part of the call.
    opening = opening.rpartition("</think>")[2].lstrip()
    link = betweens[1] if count == 2 else None
    if any("zq" in part for part in (opening, *betweens, closing)) or not opening.strip():
        return None
    if count == 2 and betweens[0] != betweens[2]:
        return None
    return ToolCallFormat(opening, betweens[0], closing, link, separators)


def _split(text: str, count: int, separators: tuple[str, str]) -> list[str] | None:
    """The texts around names and arguments; None if these are not all there in this form."""
    parts: list[str] = []
    for name, arguments in [*zip(_NAMES, _ARGUMENTS, strict=True)][:count]:
        for part in (name, json.dumps(arguments, separators=separators)):
            before, match, text = text.partition(part)
            if not match:
                return None
            parts.append(before)
    return [*parts, text]


def _tool(name: str) -> dict[str, Any]:
    properties = {key: {"type": "integer", "description": "zqtold"} for key in _ARGUMENTS[0]}
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    function = {"name": name, "description": "zqtold", "parameters": parameters}
    return {"type": "function", "function": function}


def spell_out(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """A conversation with its tools in plain text, for chat templates that know no tools."""
    spelled: list[Message] = []
    if tools:
        schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        spelled.append({"role": "system", "content": _TOOL_PROMPT.format(tools=schemas)})
    for message in messages:
        content = message["content"]
        if message["role"] == "tool":
            result = f"<tool_response>\n{content}\n</tool_response>"
            spelled.append({"role": "user", "content": result})
        elif message.get("tool_calls"):
            functions = [call["function"] for call in message["tool_calls"]]
            calls = HERMES.write([(call["name"], call["arguments"]) for call in functions])
            spelled.append({"role": message["role"], "content": f"{content}\n{calls}".strip()})
        else:
            spelled.append(message)
    return spelled
