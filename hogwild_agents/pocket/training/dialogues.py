"""Conversations about tools and structures, with the reply that the pocket model should write."""

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
from hogwild_agents.pocket.training.teacher import REFUSAL, DirectAnswer, ReplyPart
from hogwild_agents.team.prompts import STRUCTURE

DialogueKind: TypeAlias = Literal["tasks", "call", "result", "structured", "refusal", "forced"]
"""What a conversation asks for: to solve tasks; to call a tool; to pass a tool's result on; JSON
that fits a schema; something that cannot be done, where the model refuses or a call is forced."""

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
    """A conversation that the model is to continue, and how.

    Attributes:
        messages: The conversation.
        tools: The tools that the model may call.
        problem: What a team works on.
        reply: The reply to the user; None if what the team states is enough.
        kind: What is asked for.
    """

    messages: list[dict[str, Any]]
    tools: Sequence[dict[str, Any]]
    problem: TaskList | DirectAnswer
    reply: Sequence[ReplyPart] | None
    kind: DialogueKind = "tasks"

    @property
    def text(self) -> str:
        """The whole reply."""
        return "".join(part.text for part in self.reply or ())


def message(content: str, role: str = "user") -> dict[str, Any]:
    """A chat message."""
    return {"role": role, "content": content}


def some_tools(rng: random.Random) -> list[dict[str, Any]]:
    """One to three tools."""
    return [function.tool for function in _functions(rng, rng.randint(1, 3))]


def dialogues(seed: int | str, kind: DialogueKind) -> Iterator[Dialogue]:
    """Endless conversations of one kind other than `tasks`; another seed gives others."""
    rng = random.Random(f"dialogues {seed}")
    while True:
        dialogue = make_dialogue(rng)
        if dialogue.kind == kind:
            yield dialogue


def make_dialogue(rng: random.Random) -> Dialogue:
    """Makes a random conversation about tools or structures."""
    functions = _functions(rng, rng.choices((1, 2, 3, 4), (45, 30, 15, 10))[0])
    function = functions[0]
    rng.shuffle(functions)
    messages = [message(rng.choice(_SYSTEM), "system")] if rng.random() < 0.12 else []
    if rng.random() < 0.22:
        return _structured(rng, function, messages)
    tools = [each.tool for each in functions]
    if rng.random() < 0.12:
        earlier, reply = _exchange(rng, make_request(rng, rng.choice(functions)))
        messages += earlier
        if rng.random() < 0.5:
            messages.append(message(reply, "assistant"))
    kind = rng.random()
    if kind < 0.5:
        request = make_request(rng, function)
        messages.append(message(request.text))
        return Dialogue(
            messages, tools, DirectAnswer(function.name), [ReplyPart(request.call)], "call"
        )
    if kind < 0.78:
        exchange, reply = _exchange(rng, make_request(rng, function))
        return Dialogue(
            [*messages, *exchange], tools, DirectAnswer("reply"), [ReplyPart(reply)], "result"
        )
    messages.append(message(_out_of_reach(rng, functions)))
    if kind < 0.88:
        return Dialogue(messages, tools, DirectAnswer(REFUSAL), [ReplyPart(REFUSAL)], "refusal")
    first = functions[0]
    call = written_call(first.name, default_arguments(first)).removeprefix(_OPENING)
    parts = [ReplyPart(_OPENING, learnt=False), ReplyPart(call)]
    return Dialogue(messages, tools, DirectAnswer(REFUSAL), parts, "forced")


def _functions(rng: random.Random, count: int) -> list[Function]:
    """Functions that no request confuses."""
    functions: list[Function] = []
    while len(functions) < count:
        function = make_function(rng)
        if not _is_ambiguous(function, functions):
            functions.append(function)
    return functions


def _is_ambiguous(function: Function, others: Sequence[Function]) -> bool:
    """Whether a request for the function could mean one of the others, or the other way round."""
    return any(_may_mean(function, other) or _may_mean(other, function) for other in others)


def _may_mean(requested: Function, other: Function) -> bool:
    """Whether a word for the requested function also occurs in what is shown of the other."""
    return any(word in other.shown for word in (requested.verb, requested.noun))


def _exchange(rng: random.Random, request: Request) -> tuple[list[dict[str, Any]], str]:
    """A request, the call and its result; and the reply that should follow."""
    function = {"name": request.function.name, "arguments": dict(request.arguments)}
    call = {"type": "function", "id": f"{rng.getrandbits(36):09x}", "function": function}
    result, reply = make_result(rng, request)
    return [
        message(request.text),
        message("", "assistant") | {"tool_calls": [call]},
        message(result, "tool") | {"tool_call_id": call["id"]},
    ], reply


def _structured(rng: random.Random, function: Function, messages: list[dict[str, Any]]) -> Dialogue:
    """A request for JSON that fits the schema of a function's arguments."""
    while not function.parameters:
        function = make_function(rng)
    schema = function.schema
    if function.description and rng.random() < 0.5:
        schema = {"description": function.description} | schema
    shown = STRUCTURE + json.dumps(schema, ensure_ascii=False)
    messages.append(message(shown, "system"))
    if rng.random() < 0.75:
        request = make_request(rng, function, called=False)
        text, arguments = request.text, request.arguments
    else:
        text, arguments = other_question(rng), default_arguments(function)
    messages.append(message(text))
    written = json.dumps(arguments, ensure_ascii=False)
    parts = [ReplyPart("{", learnt=False), ReplyPart(written[1:])]
    if rng.random() < 0.5:
        parts = [ReplyPart(written)]
    return Dialogue(messages, (), DirectAnswer("JSON"), parts, "structured")


def _out_of_reach(rng: random.Random, functions: Sequence[Function]) -> str:
    """A question that the model cannot answer, or that needs a function which it does not have."""
    if rng.random() < 0.5:
        return other_question(rng)
    missing = make_function(rng)
    while _is_ambiguous(missing, functions):
        missing = make_function(rng)
    return make_request(rng, missing).text


def other_question(rng: random.Random) -> str:
    """A question that the model cannot answer."""
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
