"""Answer formats: how a team is asked for a final answer, and how to find it in the team's text.

This module knows nothing of workers, tokens or caches: text goes in, a value or None comes out. The
text of a model may be broken or hostile, so no search raises an error of its own, or takes much
longer than reading the text once.
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
    """One way to state a final answer, and how to read it.

    Attributes:
        name: Its name.
        instruction: Completes "State the final answer as ..." in the prompt.
        opening: What the early finisher writes before the answer.
        max_tokens: How many tokens the early finisher may add.
        find: Strict: the final answer that a worker's step states, or None.
        extract: Lenient: the answer in any text, such as a reply or a transcript, or None.
        complete: Whether the answer is complete in a text written after `opening`.
        prefix: The end of `opening` that belongs to the answer: `extract(prefix + text)` works.
    """

    name: str
    instruction: str
    opening: str
    max_tokens: int
    find: Callable[[str], Any]
    extract: Callable[[str], Any]
    complete: Callable[[str], bool]
    prefix: str


_TIME_IS_UP = "\n\nTime is up, so I answer now. Going by all that we have found so far, the final "
# Text that only quotes how an answer is to be stated.
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
    prefix: str,
    max_tokens: int,
    scan: Callable[[str], tuple[list[str], list[str]]],
    stop: re.Pattern[str],
) -> AnswerFormat:
    """A format with marks around the answer.

    `scan` lists the contents of such marks, by the strict rule and by the lenient one. `elsewhere`
    looks for an answer without marks. An answer ends with its mark, or at `stop`.
    """

    def read(content: str) -> Any:
        return None if _PLACEHOLDER.fullmatch(_WORDS.sub(r"\1", content)) else parse(content)

    def find(text: str) -> Any:
        return _last(read, scan(text)[0])

    def extract(text: str) -> Any:
        value = _last(read, scan(text)[1])
        return elsewhere(text) if value is None else value

    def complete(written: str) -> bool:
        return stop.search(written) is not None or bool(scan(prefix + written)[0])

    opening = f"{_TIME_IS_UP}{before}{prefix}"
    return AnswerFormat(name, instruction, opening, max_tokens, find, extract, complete, prefix)


# An escaped character counts as one, so \{ is no brace. Models sometimes double the \ of a box.
_BRACE = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox)\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.S)
_BLANK_LINE = re.compile(r"(?<=\S)[ \t\r]*\n[ \t\r]*\n")


def _boxes(text: str) -> tuple[list[str], list[str]]:
    """The contents of the closed boxes; the same preceded by the contents of a last open box.

    A box around another box does not count, so contents never overlap. An open box is read up to a
    blank line.
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
    _marked, before="answer is ", prefix="\\boxed{", max_tokens=16, scan=_boxes, stop=_BLANK_LINE
)


def boxed(parse: Callable[[str], Any] = str) -> AnswerFormat:
    r"""The last valid `\boxed{...}`.

    Args:
        parse: Turns the content of a box into the answer. If it raises ValueError, TypeError or
            ArithmeticError, or returns None, that box is not valid. By default the answer is text.
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
    """`text` with the various ways to write one number or letter reduced to one."""
    text = re.sub(r"\\[,!;: ]|~|\{(?=,\})|(?<=\{,)\}", "", text.replace("\u2212", "-"))
    text = re.sub(r"(\\[dt]?frac)\s*([0-9])\s*([0-9])", r"\1{\2}{\3}", text)
    return _WORDS.sub(r" \1 ", text).strip()


def _value(match: re.Match[str]) -> int | float:
    """The number of a match; ArithmeticError or ValueError if that is not a finite number."""
    top, bottom = match["top"] or match["value"], match["bottom"] or match["over"] or "1"
    parts = match["whole"] or "0", top, bottom
    whole, over, under = (Fraction(part.replace(",", "")) for part in parts)
    value = (whole + over / under) * Fraction(10) ** int(match["power"] or 0)
    value = -value if match["sign"] == "-" else value
    return float(value) if value.denominator > 1 or "." in top + bottom else int(value)


def _number_alone(content: str) -> int | float | None:
    """The number that is all of `content`, except for an `x =` before it and units after it."""
    match = _NUMBER_ALONE.fullmatch(_plain(content).rpartition("=")[2].strip("$ "))
    return _value(match) if match else None


def _number_in(text: str) -> Any:
    """The number called the answer, or after a last `=`, or else the last number of the text."""
    text = _plain(_STEP_INDEX.sub("", text))
    stated = _last(_value, _STATED_NUMBER.finditer(text))
    return _last(_value, _ANY_NUMBER.finditer(text)) if stated is None else stated


def number() -> AnswerFormat:
    """A finite number: an int if it is whole and written without a point, else a float."""
    return _boxed("number", "`\\boxed{number}`", _number_alone, _number_in)


def choice(letters: str = "ABCD") -> AnswerFormat:
    """One of several ASCII letters, in upper case.

    Raises:
        InvalidAnswerFormatError: `letters` are not at least two different ASCII letters.
    """
    upper = letters.upper()
    if not (letters.isascii() and letters.isalpha() and 1 < len(letters) == len(set(upper))):
        raise InvalidAnswerFormatError(
            f"choice({letters!r}): give two ASCII letters or more, none of them twice, like 'ABCD'."
        )
    letter, capital = f"([{upper}{upper.lower()}])", f"[{upper}]"
    alone = re.compile(rf"[\W_]*{letter}[\W_]*")
    labelled = re.compile(rf"[\W_]*{letter}\s*[)\].:](?!.*\b{capital}\b).*", re.DOTALL)
    # Without brackets only a capital counts: "the answer is a ..." says nothing yet.
    stated = re.compile(rf"{_STATED}(?:(?<=[(\[]){letter}(?=[)\]])|({capital})(?!\w))", re.VERBOSE)

    def in_box(content: str) -> str | None:
        content = _plain(content)
        match = alone.fullmatch(content) or labelled.fullmatch(content)
        return match[1].upper() if match else None

    def elsewhere(text: str) -> Any:
        text = _plain(text)
        last_line = alone.fullmatch(text.rpartition("\n")[2])
        matches = [*([last_line] if last_line else []), *stated.finditer(text)]
        return _last(lambda match: match[match.lastindex].upper(), matches)

    return _boxed(
        "choice", f"`\\boxed{{letter}}`, with one of {', '.join(upper)}", in_box, elsewhere
    )


# Possessive (*+): the text is never read twice, however broken it is.
_BLOCK = re.compile(
    r"^[ \t]*(?P<fence>`{3,}+|~{3,}+)(?P<info>[^\n`]*)\n"
    r"(?P<body>(?:(?![ \t]*(?P=fence))(?:.*\n|.+))*+)"
    r"(?:(?P<end>[ \t]*(?P=fence)[`~]*[ \t\r]*$)|\Z)",
    re.MULTILINE,
)


def _fences(ranks: dict[str, int], text: str) -> tuple[list[str], list[str]]:
    """The contents of the fenced blocks whose info string is in `ranks`.

    First the closed blocks of the highest rank; then all blocks by rank, after one that is still
    open. A block that does not end before the next one begins is no block.
    """
    blocks: list[tuple[bool, int, str]] = []
    for block in _BLOCK.finditer(text):
        rank = ranks.get(" ".join(block["info"].lower().split()))
        if rank is not None:
            blocks.append((bool(block["end"]), rank, block["body"]))
    highest = [body for closed, rank, body in blocks if closed and rank == max(ranks.values())]
    blocks.sort(key=lambda block: block[:2])
    return highest, [body for _, _, body in blocks]


_fenced = partial(_marked, stop=re.compile(r"^[ \t]*```+[ \t\r]*$", re.MULTILINE))
_JSON = json.JSONDecoder(parse_constant=Fraction)  # Fraction refuses NaN and Infinity
_JSON_START = re.compile(r"\{(?=\s*[\"}])|\[(?=\s*[]\[{\"\w-])")


def _json(text: str) -> Any:
    """The value of a JSON text; ValueError if it is not JSON."""
    try:
        return _JSON.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _json_in(text: str, parse: Callable[[Any], Any]) -> Any:
    """The result of `parse` for the last object or list in `text` that it accepts.

    If an object or list around it is accepted too, that one counts.

    Goes backwards: the innermost comes first, then the one that holds it, until no later bracket
    could close another. So a long and broken beginning costs nothing.
    """
    text = _STEP_INDEX.sub("", text)
    last = max(text.rfind("}"), text.rfind("]"))
    answer, answer_end = None, 0
    characters = 2_000_000  # that may be read, some of them again
    for start in reversed([bracket.start() for bracket in _JSON_START.finditer(text)]):
        if answer_end > last or characters < 0:
            break
        try:
            value, end = _JSON.raw_decode(text, start)
            if end > answer_end and (parsed := _last(parse, [value])) is not None:
                answer, answer_end = parsed, end
        except (ValueError, RecursionError) as error:
            end = getattr(error, "pos", start + 10_000)
            characters -= end // 32  # to make the error, Python counts the lines before it
        characters -= end - start + 1
    return answer


def json_answer(parse: Callable[[Any], Any] = lambda value: value) -> AnswerFormat:
    """A JSON value; null counts as no answer.

    Args:
        parse: Turns the value into the answer, as in `boxed`. By default it is the answer.
    """
    prefix, scan = "```json\n", partial(_fences, {"json": 0})
    fenced = partial(_fenced, before="answer is:\n\n", prefix=prefix, max_tokens=64, scan=scan)
    return fenced(
        "json",
        'JSON in a block that begins with "```json"',
        lambda text: parse(_json(text)),
        partial(_json_in, parse=parse),
    )


_WARNINGS_LOCK = threading.Lock()  # the filters of warnings belong to the whole process


def _program(text: str) -> str | None:
    """`text` if it is Python that compiles and is not empty; it is never run."""
    text = textwrap.dedent(text)
    if len(text) > 100_000 or not re.search(r"^[ \t]*[^\s#]", text, re.MULTILINE):
        return None
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<answer>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return text


def code() -> AnswerFormat:
    """Python that compiles: a block marked as final, else as Python, else one without mark."""
    ranks = {"": 0, "py": 1, "python3": 1, "python": 1, "python final": 2}
    prefix, scan = "```python final\n", partial(_fences, ranks)
    fenced = partial(_fenced, before="program is:\n\n", prefix=prefix, max_tokens=1024, scan=scan)
    return fenced("code", 'a whole program in a block that begins with "```python final"', _program)


def _free(name: str, instruction: str, extract: Callable[[str], Any]) -> AnswerFormat:
    """A format without marks: its answer may go on until the line ends."""

    def complete(written: str) -> bool:
        return "\n" in written.lstrip() and extract(written) is not None

    opening = f"{_TIME_IS_UP}answer is:\n\n"
    return AnswerFormat(name, instruction, opening, 64, extract, extract, complete, prefix="")


def pattern(regex: str | re.Pattern[str]) -> AnswerFormat:
    """The last match that is not empty: its group "answer", else its first group, else all of it.

    Raises:
        InvalidAnswerFormatError: `regex` is not a regular expression.
    """
    try:
        compiled = re.compile(regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidAnswerFormatError(
            f"pattern({regex!r}): {error}. Correct the regex."
        ) from error
    group = compiled.groupindex.get("answer", min(compiled.groups, 1))
    instruction = f"text that matches the regular expression `{compiled.pattern}`"
    matches = compiled.finditer
    return _free(
        "pattern", instruction, lambda text: _last(lambda m: m[group] or None, matches(text))
    )


def custom(extract: Callable[[str], Any]) -> AnswerFormat:
    """The value that `extract` finds in a text; None is no answer. Its errors are passed on."""
    return _free("custom", "the task asks for it", extract)


def answer_format(spec: str | AnswerFormat | Callable[[str], Any]) -> AnswerFormat:
    """The format of that name, the format itself, or a `custom` format made of a function.

    Raises:
        InvalidAnswerFormatError: There is no format of that name.
    """
    named = {"boxed": boxed, "number": number, "choice": choice, "json": json_answer, "code": code}
    if isinstance(spec, AnswerFormat):
        return spec
    if isinstance(spec, str) and spec in named:
        return named[spec]()
    if inspect.iscoroutinefunction(spec):
        raise InvalidAnswerFormatError(
            f"The answer format {spec!r} is asynchronous: give a plain, quick function."
        )
    if callable(spec):
        return custom(spec)
    raise InvalidAnswerFormatError(
        f"There is no answer format {spec!r}. Choose one of {', '.join(named)}, "
        "or give an AnswerFormat or a function from a text to an answer."
    )
