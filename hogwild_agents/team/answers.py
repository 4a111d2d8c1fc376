"""Final answers: how a team is asked for one, and how it is found in what the team wrote.

Knows nothing of workers, tokens or caches: text goes in, a value or None comes out. A model's text
may be broken or hostile: no search raises, or takes much longer than reading the text once.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

from hogwild_agents.errors import InvalidAnswerFormatError


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """One way to state a final answer, and how to read it."""

    name: str
    instruction: str  # completes "State the final answer as ..." in the prompt
    opening: str  # what the early finisher writes before the answer
    max_tokens: int  # how many tokens the early finisher may add
    found: Callable[[str], Any]  # strict: the final answer stated in a worker's step, or None
    extract: Callable[[str], Any]  # lenient: the answer in any text (reply, transcript), or None
    complete: Callable[[str], bool]  # of what was written after `opening`: is the answer whole?
    lead: str  # the end of `opening` that is part of the answer: extract(lead + written) works


_TIME_IS_UP = "\n\nTime is up, so I answer now. Going by all that we have found so far, the final "
# What a worker writes that only quotes how an answer is to be stated.
_PLACEHOLDER = re.compile(r"\s*((your |final )*answer( here)?|\.\.\.|…|\\[lc]?dots)?\s*", re.I)
_WORDS = re.compile(r"\\(?:text|math|m)(?:bf|box|it|normal|rm|sf|tt)?\s*\{([^{}]*)\}")


def _last(parse: Callable[[Any], Any], candidates: Iterable[Any]) -> Any:
    """The value of the last candidate that `parse` accepts, or None."""
    for candidate in reversed(list(candidates)):
        try:
            value = parse(candidate)
        except (ValueError, TypeError, ArithmeticError):
            continue
        if value is not None:
            return value
    return None


def _marked(
    name: str,
    instruction: str,
    parse: Callable[[str], Any],
    elsewhere: Callable[[str], Any] = lambda _: None,
    *,
    before: str,
    lead: str,
    max_tokens: int,
    scan: Callable[[str], tuple[list[str], list[str]]],
    stop: re.Pattern[str],
) -> AnswerFormat:
    """A format with marks around the answer.

    `scan` lists what such marks hold, first by the strict rule and then by the lenient one;
    `elsewhere` looks for an answer without them. An answer ends with its mark, or at `stop`.
    """

    def read(content: str) -> Any:
        return None if _PLACEHOLDER.fullmatch(_WORDS.sub(r"\1", content)) else parse(content)

    def found(text: str) -> Any:
        return _last(read, scan(text)[0])

    def extract(text: str) -> Any:
        value = _last(read, scan(text)[1])
        return elsewhere(text) if value is None else value

    def complete(written: str) -> bool:
        return stop.search(written) is not None or bool(scan(lead + written)[0])

    opening = f"{_TIME_IS_UP}{before}{lead}"
    return AnswerFormat(name, instruction, opening, max_tokens, found, extract, complete, lead)


# Escaped characters are read as one, so that \{ is no brace; models double the \ of a box at times.
_BRACE = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.S)
_BLANK_LINE = re.compile(r"(?<=\S)[ \t\r]*\n[ \t\r]*\n")


def _boxes(text: str) -> tuple[list[str], list[str]]:
    """What the closed boxes hold; the same, after what the last box holds if that is still open.

    A box around another box does not count, so that contents never overlap. An open one is read up
    to a blank line.
    """
    closed: list[str] = []
    opened: list[int] = []
    box = -1
    for brace in _BRACE.finditer(text):
        if brace.lastgroup == "close":
            if opened and opened.pop() == box:
                closed.append(text[box : brace.start()].strip())
        elif brace.lastgroup:
            opened.append(brace.end())
            box = brace.end() if brace.lastgroup == "box" else box
    tail = [_BLANK_LINE.split(text[box:].strip(), maxsplit=1)[0]] if box in opened else []
    return closed, tail + closed


_boxed = partial(
    _marked, before="answer is ", lead="\\boxed{", max_tokens=16, scan=_boxes, stop=_BLANK_LINE
)


def boxed(parse: Callable[[str], Any] = str) -> AnswerFormat:
    r"""The last valid `\boxed{...}`.

    Args:
        parse: Turns what a box holds into the answer. Where it raises ValueError, TypeError or
            ArithmeticError, or gives None, that box is not valid. Keeps the text if not given.
    """
    return _boxed("boxed", "`\\boxed{answer}`", parse)


_STATED = r"""(?i:\b(?:answer|option|choice)[\s*_]*(?:is|[:=])(?:\s+(?:option|choice)\b)?)
    (?:\\?[\s*_`$:"'(\[])*+"""
_NUMBER = r"""
    (?:\\?[$€£¥])? (?P<sign>(?<![\w)\]}])[-+])? (?:\\?[$€£¥]\s*)?
    (?: (?:(?P<whole>[0-9]+)\s*)? \\[dt]?frac\s*
        \{\s*(?P<top>[-+]?DECIMAL)\s*\}\s* \{\s*(?P<bottom>DECIMAL)\s*\}
      | (?P<value>DECIMAL) (?:\s*/\s*(?P<over>DECIMAL))? )
    (?: (?:[eE]|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?\s*) (?P<power>[-+]?[0-9]{1,3}) (?![0-9])
        \s*\}? )?
""".replace(
    "DECIMAL", r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)"
)
_UNITS = r"""
    \s*+ (?: \\?% | ° | \^\{?\\circ\}? )?
    (?: (?!(?:pi|dozen|hundred|thousand|[mbtr]+illion)\b)  # these would be part of the number
        (?: (?<=\s)[A-Za-z] | [A-Za-z]{2} ) [A-Za-z\s/.-]*+ (?:\^\{?[0-9]\}?)? )?
    \.? \s*
"""
_ANY_NUMBER = re.compile(_NUMBER, re.VERBOSE)
_NUMBER_ALONE = re.compile(_NUMBER + _UNITS, re.VERBOSE)
_STATED_NUMBER = re.compile(rf"(?:{_STATED}|=\s*(?=[^=\n]{{0,40}}\Z)){_NUMBER}", re.VERBOSE)
_STEP_INDEX = re.compile(r"\[[0-9]+\]:\*\*")  # in a transcript; neither a number nor a list


def _plain(text: str) -> str:
    """`text` with fewer ways to write the same number or letter."""
    text = re.sub(r"\\[,!;: ]|~|\{(?=,\})|(?<=\{,)\}", "", text.replace("\u2212", "-"))
    text = re.sub(r"(\\[dt]?frac)\s*([0-9])\s*([0-9])", r"\1{\2}{\3}", text)
    return _WORDS.sub(r" \1 ", text).strip()


def _value(found: re.Match[str]) -> int | float:
    """The number that was found; ArithmeticError or ValueError if there is none such."""
    top, bottom = found["top"] or found["value"], found["bottom"] or found["over"] or "1"
    parts = found["whole"] or "0", top, bottom
    whole, over, under = (Fraction(part.replace(",", "")) for part in parts)
    value = (whole + over / under) * Fraction(10) ** int(found["power"] or 0)
    value = -value if found["sign"] == "-" else value
    return float(value) if value.denominator > 1 or "." in top + bottom else int(value)


def _number_alone(content: str) -> int | float | None:
    """The number that is all of `content`, but for an `x =` before it and units behind it."""
    found = _NUMBER_ALONE.fullmatch(_plain(content).rpartition("=")[2].strip("$ "))
    return _value(found) if found else None


def _number_in(text: str) -> Any:
    """The number called the answer, or that the text ends with after `=`, or else its last one."""
    text = _plain(_STEP_INDEX.sub("", text))
    stated = _last(_value, _STATED_NUMBER.finditer(text))
    return _last(_value, _ANY_NUMBER.finditer(text)) if stated is None else stated


def number() -> AnswerFormat:
    """A number: int if it is whole and written without a point, else float; always finite."""
    return _boxed("number", "`\\boxed{number}`", _number_alone, _number_in)


def choice(letters: str = "ABCD") -> AnswerFormat:
    """One of several ASCII letters, in upper case.

    Raises:
        InvalidAnswerFormatError: If `letters` are not at least two, all different.
    """
    upper = letters.upper()
    if not (letters.isascii() and letters.isalpha() and 1 < len(letters) == len(set(upper))):
        raise InvalidAnswerFormatError(
            f"choice({letters!r}): give two ASCII letters or more, none of them twice, like 'ABCD'."
        )
    one, capital = f"([{upper}{upper.lower()}])", f"[{upper}]"
    alone = re.compile(rf"[\W_]*{one}[\W_]*")
    labelled = re.compile(rf"[\W_]*{one}\s*[)\].:](?!.*\b{capital}\b).*", re.DOTALL)
    # Without brackets only a capital counts: "the answer is a ..." says nothing yet.
    stated = re.compile(rf"{_STATED}(?:(?<=[(\[]){one}(?=[)\]])|({capital})(?!\w))", re.VERBOSE)

    def in_box(content: str) -> str | None:
        content = _plain(content)
        found = alone.fullmatch(content) or labelled.fullmatch(content)
        return found[1].upper() if found else None

    def elsewhere(text: str) -> Any:
        text = _plain(text)
        lone = alone.fullmatch(text.rpartition("\n")[2])
        found = [*([lone] if lone else []), *stated.finditer(text)]
        return _last(lambda match: match[match.lastindex].upper(), found)

    return _boxed(
        "choice", f"`\\boxed{{letter}}`, with one of {', '.join(upper)}", in_box, elsewhere
    )


# Possessive (*+): what has been read is never read again in another way, however broken the text.
_BLOCK = re.compile(
    r"^[ \t]*(?P<fence>`{3,}+|~{3,}+)(?P<info>[^\n`]*)\n"
    r"(?P<body>(?:(?![ \t]*(?P=fence))(?:.*\n|.+))*+)"
    r"(?:(?P<end>[ \t]*(?P=fence)[`~]*[ \t\r]*$)|\Z)",
    re.MULTILINE,
)


def _fences(ranks: dict[str, int], text: str) -> tuple[list[str], list[str]]:
    """What the fenced blocks hold whose info string is in `ranks`.

    First those of the highest rank that are closed; then all by rank, after one that is still open.
    A block without an end before the next one begins is no block.
    """
    blocks: list[tuple[bool, int, str]] = []
    for block in _BLOCK.finditer(text):
        rank = ranks.get(" ".join(block["info"].lower().split()))
        if rank is not None:
            blocks.append((bool(block["end"]), rank, block["body"]))
    final = [body for closed, rank, body in blocks if closed and rank == max(ranks.values())]
    blocks.sort(key=lambda block: block[:2])
    return final, [body for _, _, body in blocks]


_fenced = partial(_marked, stop=re.compile(r"^[ \t]*```+[ \t\r]*$", re.MULTILINE))
_JSON = json.JSONDecoder(parse_constant=Fraction)  # it refuses NaN and Infinity, as JSON does
_JSON_START = re.compile(r"\{(?=\s*[\"}])|\[(?=\s*[]\[{\"\w-])")


def _json(text: str) -> Any:
    """The value that all of `text` stands for; ValueError if it is not JSON."""
    try:
        return _JSON.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _json_in(text: str, parse: Callable[[Any], Any]) -> Any:
    """What `parse` makes of the last object or list of `text` that it accepts.

    It is taken with all that is around it and is accepted too.

    Goes backwards: first comes the innermost, then what holds it, until no bracket is left behind
    it that could close one more. So a long and broken beginning costs nothing.
    """
    text = _STEP_INDEX.sub("", text)
    last = max(text.rfind("}"), text.rfind("]"))
    value, reach, spare = None, 0, 2_000_000  # characters that may be read, some of them again
    for start in reversed([bracket.start() for bracket in _JSON_START.finditer(text)]):
        if reach > last or spare < 0:
            break
        try:
            found, end = _JSON.raw_decode(text, start)
            if end > reach and (parsed := _last(parse, [found])) is not None:
                value, reach = parsed, end
        except (ValueError, RecursionError) as error:
            end = getattr(error, "pos", start + 10_000)
            spare -= end // 32  # to make the error, Python counts the lines before it
        spare -= end - start + 1
    return value


def json_answer(parse: Callable[[Any], Any] = lambda value: value) -> AnswerFormat:
    """A JSON value; null counts as no answer.

    Args:
        parse: Turns the value into the answer, as in `boxed`. Keeps it if not given.
    """
    lead, scan = "```json\n", partial(_fences, {"json": 0})
    fenced = partial(_fenced, before="answer is:\n\n", lead=lead, max_tokens=64, scan=scan)
    return fenced(
        "json",
        'JSON in a block that begins with "```json"',
        lambda text: parse(_json(text)),
        partial(_json_in, parse=parse),
    )


_ONE_AT_A_TIME = threading.Lock()  # the filters of warnings belong to the whole process


def _program(text: str) -> str | None:
    """`text` if it is Python that compiles and does something; it is never run."""
    text = textwrap.dedent(text)
    if len(text) > 100_000 or not re.search(r"^[ \t]*[^\s#]", text, re.MULTILINE):
        return None
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return text


def code() -> AnswerFormat:
    """Python that compiles: a block marked as final, else as Python, else one without a mark."""
    ranks = {"": 0, "py": 1, "python3": 1, "python": 1, "python final": 2}
    lead, scan = "```python final\n", partial(_fences, ranks)
    fenced = partial(_fenced, before="program is:\n\n", lead=lead, max_tokens=1024, scan=scan)
    return fenced("code", 'a whole program in a block that begins with "```python final"', _program)


def _free(name: str, instruction: str, extract: Callable[[str], Any]) -> AnswerFormat:
    """A format without marks: its answer might go on until the line ends."""

    def complete(written: str) -> bool:
        return "\n" in written.lstrip() and extract(written) is not None

    opening = f"{_TIME_IS_UP}answer is:\n\n"
    return AnswerFormat(name, instruction, opening, 64, extract, extract, complete, lead="")


def pattern(regex: str | re.Pattern[str]) -> AnswerFormat:
    """The last match that is not empty: its group "answer", else its first group, else all of it.

    Raises:
        InvalidAnswerFormatError: If `regex` is not a regular expression.
    """
    try:
        compiled = re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidAnswerFormatError(f"pattern({regex!r}): {error}. Mend the regex.") from error
    group = compiled.groupindex.get("answer", min(compiled.groups, 1))
    instruction = f"text that matches the regular expression `{compiled.pattern}`"
    matches = compiled.finditer
    return _free(
        "pattern", instruction, lambda text: _last(lambda m: m[group] or None, matches(text))
    )


def custom(extract: Callable[[str], Any]) -> AnswerFormat:
    """Whatever `extract` finds in a text; None is no answer, and what it raises is passed on."""
    return _free("custom", "the task asks for it", extract)


def answer_format(given: str | AnswerFormat | Callable[[str], Any]) -> AnswerFormat:
    """The format that is meant: one by its name, one that is ready, or a function for `custom`.

    Raises:
        InvalidAnswerFormatError: If there is no format of that name.
    """
    named = {"boxed": boxed, "number": number, "choice": choice, "json": json_answer, "code": code}
    if isinstance(given, AnswerFormat):
        return given
    if isinstance(given, str) and given in named:
        return named[given]()
    if inspect.iscoroutinefunction(given):
        raise InvalidAnswerFormatError(
            f"The answer format {given!r} is asynchronous: give a plain, quick function."
        )
    if callable(given):
        return custom(given)
    raise InvalidAnswerFormatError(
        f"There is no answer format {given!r}. Choose one of {', '.join(named)}, "
        "or give an AnswerFormat or a function from a text to an answer."
    )
