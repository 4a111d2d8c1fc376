"""Calls of tools as text: the form that a model's chat template gives them, found by measurement.

Families write calls in different ways, between different marks. Their templates show how: one is
given a made-up call, and what stands around its name and arguments is the form.
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
        opening: Before a call's name.
        between: Between name and arguments, which are a JSON object.
        closing: After the arguments of the last call.
        link: Between one call's arguments and the next one's name; None if it makes one at a time.
        separators: Between the items of a JSON object, and between a key and its value.
    """

    opening: str
    between: str
    closing: str
    link: str | None
    separators: tuple[str, str] = _SEPARATORS[0]

    def write(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
        """Calls as the model would write them; each is a name with its arguments."""
        link = self.closing + self.opening if self.link is None else self.link
        written = [name + self.between + self._json(arguments) for name, arguments in calls]
        return self.opening + link.join(written) + self.closing if written else ""

    def _json(self, arguments: Mapping[str, Any]) -> str:
        return json.dumps(arguments, ensure_ascii=False, separators=self.separators)


HERMES = ToolCallFormat(
    opening='<tool_call>\n{"name": "',
    between='", "arguments": ',
    closing="}\n</tool_call>",
    link='}\n</tool_call>\n<tool_call>\n{"name": "',
)
"""The form of Hermes and Qwen (Teknium et al., arXiv 2408.11857), which most models have seen."""

_TOLD = """\
You can call functions. Where one helps, reply with a call of it:
<tool_call>
{{"name": <name>, "arguments": <JSON object>}}
</tool_call>
Several calls follow one another in the same form. Results come back in <tool_response>.

<tools>
{tools}
</tools>"""


SPELLED_MARKS = tuple(
    f"<{slash}{word}>" for word in ("tool_call", "tool_response", "tools") for slash in ("", "/")
)
"""What outside text must not look like where tools are spelled out."""


def measure_form(render: Callable[..., str], ends: Sequence[str]) -> ToolCallFormat | None:
    """The form of a chat template's calls, or None if it has none that can be kept to.

    Args:
        render: From messages, `tools` and `add_generation_prompt` to text; may raise anything.
        ends: Marks that end a turn.
    """
    return next(
        filter(
            None, (_measure(render, ends, count, after) for count in (2, 1) for after in (0, 1))
        ),
        None,
    )


def _measure(
    render: Callable[..., str], ends: Sequence[str], count: int, answered: int
) -> ToolCallFormat | None:
    tools = [_tool(name) for name in _NAMES]
    asked: list[dict[str, Any]] = [{"role": "user", "content": "zqask"}]
    calls = [
        {"type": "function", "id": f"zqcall{n}00", "function": {"name": name, "arguments": given}}
        for n, (name, given) in enumerate(zip(_NAMES, _ARGUMENTS, strict=True))
    ][:count]
    said = [*asked, {"role": "assistant", "content": "", "tool_calls": calls}]
    if answered:  # some templates want the results too
        said += [
            {"role": "tool", "content": "zqresult", "tool_call_id": c["id"], "name": "zqalpha"}
            for c in calls
        ]
    try:
        before = render(asked, tools=tools, add_generation_prompt=True)
        after = render(said, tools=tools, add_generation_prompt=False)
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
    cuts = [at for end in ends if (at := closing.find(end)) >= 0]
    closing = closing[: min(cuts)] if cuts else closing.rstrip()
    # What a template says before a call for a model that thinks is no part of the call.
    opening = opening.rpartition("</think>")[2].lstrip()
    link = betweens[1] if count == 2 else None
    if any("zq" in part for part in (opening, *betweens, closing)) or not opening.strip():
        return None
    if count == 2 and betweens[0] != betweens[2]:
        return None
    return ToolCallFormat(opening, betweens[0], closing, link, separators)


def _split(text: str, count: int, separators: tuple[str, str]) -> list[str] | None:
    """What stands around names and arguments, or None if they are not all there in this form."""
    parts: list[str] = []
    for name, given in [*zip(_NAMES, _ARGUMENTS, strict=True)][:count]:
        for piece in (name, json.dumps(given, separators=separators)):
            before, found, text = text.partition(piece)
            if not found:
                return None
            parts.append(before)
    return [*parts, text]


def _tool(name: str) -> dict[str, Any]:
    properties = {key: {"type": "integer", "description": "zqtold"} for key in _ARGUMENTS[0]}
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    described = {"name": name, "description": "zqtold", "parameters": parameters}
    return {"type": "function", "function": described}


def spell_out(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """A conversation with tools for a model whose chat template knows of none: all in words."""
    spelled: list[Message] = []
    if tools:
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        spelled.append({"role": "system", "content": _TOLD.format(tools=listed)})
    for message in messages:
        content = message["content"]
        if message["role"] == "tool":
            answer = f"<tool_response>\n{content}\n</tool_response>"
            spelled.append({"role": "user", "content": answer})
        elif message.get("tool_calls"):
            functions = [call["function"] for call in message["tool_calls"]]
            calls = HERMES.write([(given["name"], given["arguments"]) for given in functions])
            spelled.append({"role": message["role"], "content": f"{content}\n{calls}".strip()})
        else:
            spelled.append(message)
    return spelled
