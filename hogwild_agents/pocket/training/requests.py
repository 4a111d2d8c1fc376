"""What the pocket model can be asked to call: invented functions, and requests for one of them.

Names, parameters, phrasings and values are combined at random, and half of the words are made up.
So the model has to read the list of tools; it cannot know them by heart. A request always spells
its arguments.
"""
# ruff: noqa: RUF001, SIM905  # users write in other scripts; a literal takes a line for each word

from __future__ import annotations

import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hogwild_agents.pocket.tasks import TaskList, make_task_list

_VERBS = """
get find list show read check fetch search look up count compute convert create add update send book
order open close start stop delete move copy rename translate write make build draw plan measure
solve play post print track rate pay ask save load run test set
""".split()
_NOUNS = """
forecast temperature price stock order invoice ticket flight train hotel room table recipe song
album movie book page article note task event meeting calendar contact user account employee product
item cart parcel city country river map route distance speed score team player match sensor lamp
door light device file folder image photo chart report summary letter story poem message mail
channel branch commit issue server log metric alarm timer rate total area volume root factor square
power loan tax budget salary grade exam course lesson translation answer problem question puzzle
list plan word name color size date time zone capital population
""".split()
_PARAMETERS = {
    "string": """
city place name title query text word topic subject address country language user item file path url
email date time color code id key value message problem question style type kind from to start end
source target note details about label unit brand
""".split(),
    "integer": """
count number n x y a b amount limit year days hours size width height id level age page quantity
seats floor top k value start end
""".split(),
    "number": """
price weight rate amount x y factor length temperature share ratio scale
""".split(),
    "boolean": """
verbose force dry_run urgent all recursive exact public silent
""".split(),
}
"""Names of parameters, by type."""

_LONG = frozenset("text message problem question note details about query".split())
"""Parameters whose value may be a longer text."""

SYLLABLES = """
an be cor du el fri gra hy in jo ka lon mi nu or pe qui ro sta te ul va wo xi yo zen
""".split()
_SMALL_WORDS = "is at of in the a to and not it".split()
_CONSONANTS = "bcdfghjklmnpqrstvwxz"
_SCRIPTS = (
    *((0x4E00, 0x9FFF), (0x4E00, 0x9FFF), (0x3041, 0x3096), (0x30A1, 0x30FA), (0xAC00, 0xD7A3)),
    *((0x0430, 0x044F), (0x03B1, 0x03C9), (0x05D0, 0x05EA), (0x0620, 0x064A), (0x0905, 0x0939)),
    *((0x00DF, 0x00F6), (0x0100, 0x017F), (0x0E01, 0x0E2E), (0x1F300, 0x1F64F)),
)
"""First and last letters of alphabets."""

# {verb} {noun} {name}: the function. {v}: the only value; {q}: in quotes. {p}: its parameter.
_ONE = (
    *("{verb} the {noun} for {v}", "{verb} the {noun} of {v}.", "{noun} for {v}", "{verb} {v}"),
    *("What is the {noun} in {v}?", "What is the {noun} of {v}?", "How is the {noun} at {v}?"),
    *("I need the {noun} at {v}", "Can you {verb} the {noun} for {v}?"),
    *("Tell me the {noun} on {v}", "{name}({v})", "Compute {name}({v})."),
    *("What does {name}({v}) give?", "Call {name} with {v}."),
    *("What comes out of {name}({v})?", "Call {name} with {p} {v}.", "Run {name} on {v}"),
    *("{name} {v}", "use {name}: {v}", "{name}({p}={v})", "Ask {name} this: {v}", "{name}: {v}"),
    *("{verb} a {v} {noun}", "I want a {v} {noun}.", "A {v} {noun}, please.", "{verb} {noun} {v}."),
    *("{verb} a {noun} named {q}", "{verb} the {noun} {q}", "{verb} {q}."),
    "{verb} the {noun}: {v}",
    *("Please {verb} the {noun}, {p} is {v}.", "{verb} the {noun} where {p}={v}", "{p}: {v}"),
    *("Wie ist {noun} in {v}?", "Bitte rufe {name} mit {v} auf.", "Zeige mir {noun} für {v}"),
    *("Quel est le {noun} à {v} ?", "Appelle {name} avec {v}", "Donne-moi {noun} pour {q}"),
    *("¿Cuál es el {noun} de {v}?", "Usa {name} con {v}.", "Busca {noun} en {v}"),
    *("Qual è il {noun} di {v}?", "Usa {name} per {q}", "Qual é o {noun} em {v}?"),
    *("Wat is de {noun} in {v}?", "Какой {noun} в {v}?", "Вызови {name} с {v}.", "{noun} для {q}"),
    *("用{name}查{v}", "{v}的{noun}是什么？", "请{verb} {noun}：{v}", "「{v}」{noun}"),
    *("{v}の{noun}を教えて", "{name}を{q}で使って", "{v}의 {noun} 알려줘", "{noun} في {v}؟"),
)
# {vs}: values; {kvs}: with their parameters; {pvs}: with these in words.
_SEVERAL = (
    *("{name}({vs})", "{name}({kvs})", "Call {name} with {pvs}.", "{verb} the {noun}: {pvs}"),
    *("{verb} a {noun} with {pvs}", "{kvs}: {verb} the {noun}", "{verb} the {noun} ({kvs})"),
    *("Bitte {name} mit {pvs}.", "{noun}, {pvs}, s'il vous plaît", "{name} con {pvs}", "{pvs}"),
    *("{name}：{pvs}", "What does {name}({vs}) give?", "Compute {name}({vs})"),
    "Вызови {name}: {pvs}",
)
_TWO = (
    *("{verb} a {noun} called {q1} - {v2}", "{verb} a {noun} named {q1} ({gloss}), {v2}"),
    *("{verb} the {noun} from {v1} to {v2}.", "{noun} from {v1} to {v2}?", "{verb} {v1} in {v2}"),
    *("{verb} a {noun} {q1} ({gloss}) - {v2}", "What is {v1} in {v2}?", "{v1} / {v2}"),
    *("{verb} the {noun} of {v1} and {v2}", "What is {v1} and {v2}?"),
    "{verb} a {v1} {noun} for {v2}",
)
_NONE = ("{name}()", "Call {name}.", "{verb} the {noun}", "What does {name}() give?", "run {name}")
_BEFORE = ("Please use a tool. ", "With the tool, ", "Use {name}. ", "Hi! ", "Hey, ", "Now: ")
_AFTER = (" Use a tool.", " Please call the tool.", " Thanks!", " (use {name})", " with the tool")


class Parameter(NamedTuple):
    """One parameter of a function; `schema` is its JSON schema."""

    name: str
    schema: Mapping[str, Any]


class Function(NamedTuple):
    """An invented function that a model may call."""

    name: str
    verb: str
    noun: str
    description: str
    parameters: tuple[Parameter, ...]
    required: tuple[str, ...]

    @property
    def shown(self) -> str:
        """What a model is shown of it, without the parameters, in lower case."""
        return f"{self.name} {self.description}".lower()

    def points(self, form: str) -> bool:
        """Whether a form of request contains a word that the model is shown."""
        return (
            "{name}" in form
            or ("{noun}" in form and self.noun in self.shown)
            or ("{verb}" in form and self.verb in self.shown)
        )

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        properties = {name: dict(schema) for name, schema in self.parameters}
        return {"type": "object", "properties": properties, "required": [*self.required]}

    @property
    def tool(self) -> dict[str, Any]:
        """The function as chat templates take it."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Request:
    """A user's request, and the call that answers it."""

    function: Function
    arguments: Mapping[str, Any]
    text: str

    @property
    def call(self) -> str:
        """The call as the model writes it."""
        return written_call(self.function.name, self.arguments)


def written_call(name: str, arguments: Mapping[str, Any]) -> str:
    """A call in the format of Hermes and Qwen."""
    call = {"name": name, "arguments": arguments}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


# Functions.


def make_function(rng: random.Random) -> Function:
    """Makes a random function with up to four parameters."""
    verb = rng.choice(_VERBS) if rng.random() < 0.7 else made_up(rng)
    noun = rng.choice(_NOUNS) if rng.random() < 0.6 else made_up(rng)
    form = rng.random()
    if form < 0.6:
        name = f"{verb}_{noun}"
    elif form < 0.75:
        name = f"{noun}_{rng.choice((*_NOUNS, made_up(rng)))}"
    elif form < 0.85:
        name = verb + noun.capitalize()
    else:
        name = rng.choice((noun, verb))
    wording, description = rng.random(), ""
    if wording < 0.5:
        description = f"{verb} a {noun}.".capitalize()
    elif wording < 0.75:
        description = f"{verb}s the {noun} of a {rng.choice(_NOUNS)}".capitalize()
    elif wording < 0.9:
        description = f"{rng.choice(('Use this for a', 'The', 'Any'))} {noun}."
    parameters: dict[str, Parameter] = {}
    for _ in range(rng.choices(range(5), (5, 50, 28, 12, 5))[0]):
        parameter = _parameter(rng)
        parameters.setdefault(parameter.name, parameter)
    if description and rng.random() < 0.4:
        description = _longer(rng, description, [*parameters])
    optional = 0.25 if len(parameters) > 1 else 0.05
    required = tuple(name for name in parameters if rng.random() >= optional)
    return Function(name, verb, noun, description, tuple(parameters.values()), required)


def _longer(rng: random.Random, description: str, names: Sequence[str]) -> str:
    """A longer description, like those that are made from docstrings."""
    if rng.random() < 0.4:
        return f"{description} {sentence(rng)}"
    lines = [f"\n\n{rng.choice(('Args', 'Parameters', 'Arguments'))}:"]
    lines += [f"\n    {name}: {sentence(rng)}" for name in names]
    if rng.random() < 0.5:
        lines.append(f"\n\nReturns:\n    {sentence(rng)}")
    return description + "".join(lines)


def _parameter(rng: random.Random) -> Parameter:
    if rng.random() < 0.08:
        options = {made_up(rng) for _ in range(rng.randint(2, 4))}
        name = rng.choice(("unit", "mode", "kind", "type", "style", made_up(rng)))
        return Parameter(name, {"type": "string", "enum": sorted(options)})
    kind = rng.choices([*_PARAMETERS], (60, 25, 8, 7))[0]
    name = rng.choice(_PARAMETERS[kind]) if rng.random() < 0.7 else made_up(rng)
    if rng.random() < 0.1:
        name = f"{name}_{rng.choice(_NOUNS)}"
    description = {"description": sentence(rng)} if rng.random() < 0.12 else {}
    return Parameter(name, {**description, "type": kind})


def default_arguments(function: Function) -> dict[str, Any]:
    """Arguments of a call without a request: defaults for all required parameters."""
    defaults = {"string": "none", "integer": 0, "number": 0.0, "boolean": False}
    return {
        parameter.name: parameter.schema.get("enum", [defaults[parameter.schema["type"]]])[0]
        for parameter in function.parameters
        if parameter.name in function.required
    }


# Requests.


def make_request(rng: random.Random, function: Function, *, called: bool = True) -> Request:
    """Makes a request for a call of a function.

    Args:
        rng: Chooses values and words.
        function: The function.
        called: Whether it is to be called, so the request must point to it. Otherwise the user
            asks for its arguments only, and the request never names it.
    """
    parameters = [
        parameter
        for parameter in function.parameters
        if parameter.name in function.required or rng.random() < 0.4
    ]
    values = {p.name: _value(rng, p, alone=len(parameters) == 1) for p in parameters}
    text = _phrase(rng, function, parameters, values, called)
    if rng.random() < 0.5 and not any(text.startswith(_shown(v)) for v in values.values()):
        text = text[0].upper() + text[1:]
    if rng.random() < 0.15:
        text = rng.choice(_BEFORE if called else _BEFORE[3:]).format(name=function.name) + text
    if rng.random() < 0.2 and called:
        text += rng.choice(_AFTER).format(name=function.name)
    return Request(function, values, text)


def _phrase(
    rng: random.Random,
    function: Function,
    parameters: Sequence[Parameter],
    values: Mapping[str, Any],
    called: bool,
) -> str:
    """The text of a request, which spells all values."""

    def choose(forms: Sequence[str]) -> str:
        fits = function.points if called else lambda form: "{name}" not in form
        return rng.choice([*filter(fits, forms)])

    words = {"verb": function.verb, "noun": function.noun, "name": function.name}
    shown = {name: _shown(value) for name, value in values.items()}
    if not parameters:
        return choose(_NONE).format(**words)
    if len(parameters) == 1:
        (parameter,) = parameters
        value = shown[parameter.name]
        form = choose(_ONE)
        if parameter.schema["type"] == "boolean":
            form = choose(("{verb} the {noun}, {p}: {v}", "{name}({p}={v})", "{noun}, {p} {v}"))
        return form.format(**words, p=_spoken(parameter.name), v=value, q=_quoted(rng, value))
    if len(parameters) == 2 and rng.random() < 0.4:
        v1, v2 = shown.values()
        gloss = " ".join(made_up(rng).capitalize() for _ in range(rng.randint(1, 2)))
        return choose(_TWO).format(**words, v1=v1, v2=v2, q1=_quoted(rng, v1), gloss=gloss)
    equals = rng.choice(("=", ": ", " = "))
    mark = '"' if rng.random() < 0.3 else ""
    pairs = [
        (name, f"{mark}{value}{mark}" if isinstance(values[name], str) else value)
        for name, value in shown.items()
    ]
    last = rng.choice((", ", " and "))
    listed = [f"{_spoken(name)} {value}" for name, value in pairs]
    return choose(_SEVERAL).format(
        **words,
        vs=", ".join(value for _, value in pairs),
        kvs=", ".join(f"{name}{equals}{value}" for name, value in pairs),
        pvs=last.join([", ".join(listed[:-1]), listed[-1]]),
    )


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(rng: random.Random, value: str) -> str:
    left, right = rng.choice(("''", '""', "“”", "«»", "‘’", "''"))
    return f"{left}{value}{right}"


# Values.


def _value(rng: random.Random, parameter: Parameter, *, alone: bool) -> Any:
    schema = parameter.schema
    if "enum" in schema:
        return rng.choice(schema["enum"])
    match schema["type"]:
        case "integer":
            digits = rng.randint(1, 4)
            return rng.randint(0, 10**digits - 1) * (-1 if rng.random() < 0.08 else 1)
        case "number":
            return round(rng.uniform(0, 10 ** rng.randint(0, 3)), rng.randint(1, 2))
        case "boolean":
            return rng.random() < 0.5
    return some_text(rng, long=alone and parameter.name in _LONG)


def some_text(rng: random.Random, *, long: bool = False) -> str:
    """A string that could be an argument."""
    if long and rng.random() < 0.5:
        text = make_task_list(rng.getrandbits(64), rng.randint(1, 3), split="train").text
        return text.replace("\n", " ") if rng.random() < 0.3 else text
    kind = rng.random()
    if kind < 0.42:
        words = [made_up(rng).capitalize() for _ in range(rng.randint(1, 3))]
        region = "".join(rng.choices(string.ascii_uppercase, k=2))
        return " ".join(words) + (f", {region}" if rng.random() < 0.2 else "")
    if kind < 0.56:
        return " ".join(made_up(rng) for _ in range(rng.randint(1, 2)))
    if kind < 0.72:
        return _foreign(rng)
    if kind < 0.8:
        return rng.choice(_NOUNS)
    if kind < 0.86:
        return f"{rng.randint(1990, 2039)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    if kind < 0.9:
        return f"{made_up(rng)}@{made_up(rng)}.{rng.choice(('com', 'org', 'de'))}"
    if kind < 0.95:
        letters = "".join(rng.choices(string.ascii_uppercase, k=rng.randint(1, 3)))
        return f"{letters}{rng.choice(('-', '', ' '))}{rng.randint(1, 999)}"
    return sentence(rng)


def _foreign(rng: random.Random) -> str:
    """Random letters of one or two scripts."""
    scripts = rng.choices(_SCRIPTS, k=rng.randint(1, 2))
    return "".join(chr(rng.randint(*rng.choice(scripts))) for _ in range(rng.randint(1, 12)))


def sentence(rng: random.Random) -> str:
    """Something like a sentence."""
    words = [rng.choice((made_up(rng), rng.choice(_NOUNS))) for _ in range(rng.randint(2, 8))]
    for place in range(len(words)):
        odds = rng.random()
        if odds < 0.12:
            words[place] += rng.choice(("'s", "'t", ",", ",", ";", ":", " -", "'re"))
        elif odds < 0.2:
            words[place] = rng.choice(_SMALL_WORDS)
        elif odds < 0.24:
            words[place] = str(rng.randint(0, 999))
        elif odds < 0.27:
            words[place] = _foreign(rng)
        elif odds < 0.3:
            words[place] = f'"{words[place]}"'
    text = " ".join(words)
    text = rng.choice((text, text[0].upper() + text[1:]))
    return text + rng.choice(("", "", ".", ".", "!", "?"))


def made_up(rng: random.Random) -> str:
    """A word that does not exist."""
    if rng.random() < 0.6:
        return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(1, 3)))
    start = rng.randint(0, 1)
    return "".join(
        rng.choice("aeiouy" if (place + start) % 2 and rng.random() < 0.85 else _CONSONANTS)
        for place in range(rng.randint(2, 9))
    )


def make_result(rng: random.Random, request: Request) -> tuple[str, str]:
    """A tool's result, and the reply that passes it on."""
    kind, noun = rng.random(), request.function.noun
    if kind < 0.12:
        text = some_text(rng)
    elif kind < 0.35:
        text = sentence(rng)
    elif kind < 0.45:
        text = str(rng.randint(-50, 9999))
    elif kind < 0.65:
        text = f"{rng.choice(('The', 'Your', 'This'))} {noun} is {made_up(rng)}."
    elif kind < 0.75:
        text = f"Error: {rng.choice(('no', 'missing', 'unknown', 'invalid'))} {made_up(rng)}."
    elif kind < 0.85:
        text = final_list(make_task_list(rng.getrandbits(64), rng.randint(1, 4), split="train"))
    else:
        value = rng.choice((rng.randint(0, 999), some_text(rng)))
        name = rng.choice(("result", "value", "answer", noun, made_up(rng)))
        return json.dumps({name: value}, ensure_ascii=False), str(value)
    return text, text


def final_list(task_list: TaskList) -> str:
    """All right answers in one line."""
    return ", ".join(f"({label}) {answer}" for label, answer in task_list.answers.items())
