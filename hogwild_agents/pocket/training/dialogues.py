"""Conversations about tools and structures, and what the pocket model should reply to them."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from hogwild_agents.pocket.tasks import TaskList
from hogwild_agents.pocket.training.requests import (
    SYLLABLES,
    Function,
    Request,
    default_arguments,
    make_function,
    make_request,
    make_result,
    written_call,
)
from hogwild_agents.pocket.training.teacher import REFUSAL, Part, Plain
from hogwild_agents.team.prompts import STRUCTURE

Kind: TypeAlias = Literal["tasks", "call", "result", "structured", "refusal", "forced"]
"""What is asked for: tasks to be solved; a call of a tool; what came of a call; JSON that fits a
schema; something that cannot be done, also where a call is forced all the same."""

_QUESTIONS = (
    "what is the capital of {}?",
    "write a poem about {}",
    "who was {}?",
    "tell me about {} and {}",
    "hello {}",
    "how do I {} a {}?",
    "translate {} into French",
    "def {}({}):",
    "{} {} {} {}",
    "why is {} {}?",
    "summarize: {} {} {} {} {} {} {}",
    "Explain {} to me, step by step.",
    "{}",
)
_SYSTEM = (
    "You are a helpful assistant.",
    "Be brief.",
    "Use tools where they help.",
    "Answer truthfully.",
)
_OPENING = '<tool_call>\n{"name": "'


class Dialogue(NamedTuple):
    """A conversation up to where the model's turn begins, and what it is to do then.

    Attributes:
        messages: The conversation.
        tools: What the model may call.
        problem: What a team works on.
        reply: What is written to the user, or None if nothing is beside what the team states.
        kind: What is asked for.
    """

    messages: list[dict[str, Any]]
    tools: Sequence[dict[str, Any]]
    problem: TaskList | Plain
    reply: Sequence[Part] | None
    kind: Kind = "tasks"

    @property
    def text(self) -> str:
        """The whole reply."""
        return "".join(part.text for part in self.reply or ())


def message(content: str, role: str = "user") -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": content}


def some_tools(rng: random.Random) -> list[dict[str, Any]]:
    """One to three tools."""
    return [function.tool for function in _functions(rng, rng.randint(1, 3))]


def dialogues(seed: int | str, kind: Kind) -> Iterator[Dialogue]:
    """All conversations of one kind but `tasks`; another seed gives others."""
    rng = random.Random(f"dialogues {seed}")
    while True:
        dialogue = make_dialogue(rng)
        if dialogue.kind == kind:
            yield dialogue


def make_dialogue(rng: random.Random) -> Dialogue:
    """A random conversation about tools or structures."""
    functions = _functions(rng, rng.choices((1, 2, 3, 4), (45, 30, 15, 10))[0])
    wanted = functions[0]
    rng.shuffle(functions)
    messages = [message(rng.choice(_SYSTEM), "system")] if rng.random() < 0.12 else []
    if rng.random() < 0.22:
        return _structured(rng, wanted, messages)
    tools = [function.tool for function in functions]
    if rng.random() < 0.12:
        earlier, reply = _exchange(rng, make_request(rng, rng.choice(functions)))
        messages += earlier
        if rng.random() < 0.5:
            messages.append(message(reply, "assistant"))
    kind = rng.random()
    if kind < 0.5:
        request = make_request(rng, wanted)
        messages.append(message(request.text))
        return Dialogue(messages, tools, Plain(wanted.name), [Part(request.call)], "call")
    if kind < 0.78:
        exchange, reply = _exchange(rng, make_request(rng, wanted))
        return Dialogue([*messages, *exchange], tools, Plain("reply"), [Part(reply)], "result")
    messages.append(message(_out_of_reach(rng, functions)))
    if kind < 0.88:
        return Dialogue(messages, tools, Plain(REFUSAL), [Part(REFUSAL)], "refusal")
    first = functions[0]
    call = written_call(first.name, default_arguments(first)).removeprefix(_OPENING)
    parts = [Part(_OPENING, learnt=False), Part(call)]
    return Dialogue(messages, tools, Plain(REFUSAL), parts, "forced")


def _functions(rng: random.Random, count: int) -> list[Function]:
    """Functions that can be told apart."""
    found: list[Function] = []
    while len(found) < count:
        function = make_function(rng)
        if not _is_like(function, found):
            found.append(function)
    return found


def _is_like(function: Function, others: Sequence[Function]) -> bool:
    """Whether a request for a function could also mean one of others, or theirs this one."""
    return any(_points(function, other) or _points(other, function) for other in others)


def _points(one: Function, other: Function) -> bool:
    """Whether a word for one function stands in what is shown of the other."""
    return any(word in other.shown for word in (one.verb, one.noun))


def _exchange(rng: random.Random, request: Request) -> tuple[list[dict[str, Any]], str]:
    """A request, the call, and what came of it; and the reply that is due."""
    function = {"name": request.function.name, "arguments": dict(request.arguments)}
    call = {"type": "function", "id": f"{rng.getrandbits(36):09x}", "function": function}
    result, reply = make_result(rng, request)
    return [
        message(request.text),
        message("", "assistant") | {"tool_calls": [call]},
        message(result, "tool") | {"tool_call_id": call["id"]},
    ], reply


def _structured(rng: random.Random, wanted: Function, messages: list[dict[str, Any]]) -> Dialogue:
    """A request for JSON that fits a schema."""
    while not wanted.parameters:
        wanted = make_function(rng)
    schema = wanted.schema
    if wanted.description and rng.random() < 0.5:
        schema = {"description": wanted.description} | schema
    shown = STRUCTURE + json.dumps(schema, ensure_ascii=False)
    messages.append(message(shown, "system"))
    if rng.random() < 0.75:
        request = make_request(rng, wanted, called=False)
        text, arguments = request.text, request.arguments
    else:
        text, arguments = other_question(rng), default_arguments(wanted)
    messages.append(message(text))
    written = json.dumps(arguments, ensure_ascii=False)
    parts = [Part("{", learnt=False), Part(written[1:])]
    if rng.random() < 0.5:
        parts = [Part(written)]
    return Dialogue(messages, (), Plain("JSON"), parts, "structured")


def _out_of_reach(rng: random.Random, functions: Sequence[Function]) -> str:
    """Something that the model cannot answer, or that another function is for."""
    if rng.random() < 0.5:
        return other_question(rng)
    stranger = make_function(rng)
    while _is_like(stranger, functions):
        stranger = make_function(rng)
    return make_request(rng, stranger).text


def other_question(rng: random.Random) -> str:
    """Something that the model cannot answer."""
    question = rng.choice(_QUESTIONS)
    letters = string.ascii_letters if rng.random() < 0.9 else string.printable + "äöüßéñ漢字🙂"
    words = (
        "".join(rng.choice(letters) for _ in range(rng.randint(1, 9)))
        if rng.random() < 0.3
        else _word(rng)
        for _ in range(question.count("{}"))
    )
    text = question.format(*words)
    return text.strip() or "?"


def _word(rng: random.Random) -> str:
    """Something like a word."""
    return "".join(rng.choice(SYLLABLES[:13]) for _ in range(rng.randint(1, 4))).capitalize()
