r"""A process that decides whether two pieces of mathematics are equal.

It reads one JSON object per line, `{"rules": ..., "truth": ..., "answer": ...}`, and writes 1 or 0
for each. A question that takes too long ends the process: a signal does that, which no library can
delay. The file is run by its path and imports nothing else of the package, so it starts quickly.

The rules `math` are those of the package math-verify. The rules `olympiad` follow the judge that
was published with OlympiadBench (arXiv 2402.14008, `eval/auto_scoring_judge.py`): answers are split
at commas and at \pm and paired in any order, each with its own tolerance; a pair may be equal as
text, as intervals or tuples, as numbers, as expressions or as equations. Some rules differ, because
that judge accepts some wrong answers and rejects some right ones:

- 500 is not 5; a factor of 100 is accepted only if one side has a percent sign;
- without a tolerance in the data set, the relative error may be 1e-8, also for tiny numbers;
- equations may differ by a constant factor, unions of intervals by their order;
- an answer may be followed by the unit that the data set names.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

SECONDS = 5.0
"""Time limit for one answer."""

MEMORY = 4 * 2**30
"""Bytes of address space of the process."""

START_SECONDS = 120.0
"""Time limit for importing the libraries, which may be on a slow disk."""

TOLERANCE = 1e-8


def math(truth: str, answer: str, *, alone: bool) -> bool:
    """Whether math-verify finds an answer equal to the truth, or both are the same words.

    Args:
        truth: LaTeX or text.
        answer: The answer as LaTeX or text, or a text that contains it.
        alone: Whether `answer` is the answer alone.
    """
    from math_verify import parse, verify

    if alone and _words(truth) == _words(answer) != "":
        return True
    gold = parse(f"${_undollared(truth)}$", parsing_timeout=None)
    text = f"${_undollared(answer)}$" if alone else answer
    return bool(verify(gold, parse(text, parsing_timeout=None), timeout_seconds=None))


def _undollared(text: str) -> str:
    return text.replace("\\$", "").replace("$", "").strip()


_WRAPPED = re.compile(
    r"\\(?:text|math|operatorname)(?:bf|it|normal|rm|sf|tt)?\s*\{~?([^{}]*)\}"
    r"|\\(?:left|right|[,;! ])"
)


def _words(text: str) -> str:
    """A text without formatting, so that words can be compared."""
    return "".join(_WRAPPED.sub(r"\1", _undollared(text)).casefold().split()).strip("().")


# The rules of OlympiadBench.

_SIGNS = {
    "\N{FULLWIDTH COMMA}": ",",
    "\N{RATIO}": ":",
    "\N{MINUS SIGN}": "-",
    "$": "",
    "\\%": "%",
    "\\approx": "=",
    "\\simeq": "=",
    "\\sim": "=",
    "\\dfrac": "\\frac",
    "\\tfrac": "\\frac",
    "^{\\prime}": "'",
    "^\\prime": "'",
    "^{\\circ}": "",
    "^\\circ": "",
    "~": " ",
}
_AND = re.compile(r"\b(?:and|or)\b|;")


def olympiad(truth: str, answer: str, *, error: str = "", unit: str = "") -> bool:
    """Whether an answer is right by the rules of OlympiadBench.

    Args:
        truth: The correct answers, separated by commas.
        answer: The answers to check, separated by commas.
        error: Tolerance of numbers: one for all answers, or one for each, separated by commas.
        unit: Units that may follow an answer, separated by commas.
    """
    truth, answer = _normalized(truth), _normalized(answer)
    if truth == answer != "":
        return True
    units = [part for part in _split(_normalized(unit)) if part]
    truths = _answers(truth, units)
    answers = _answers(answer, units)
    errors = [float(part) if part.strip() else None for part in error.split(",")]
    if len(errors) != len(truths):
        errors = errors[:1] * len(truths)
    if len(truths) != len(answers):
        return False
    return _paired(
        [
            [_equal(single_truth, single_answer, tolerance) for single_answer in answers]
            for single_truth, tolerance in zip(truths, errors, strict=True)
        ]
    )


def _normalized(text: str) -> str:
    """A text with uniform notation."""
    text = text.rpartition("\\in ")[2]
    for sign, replacement in _SIGNS.items():
        text = text.replace(sign, replacement)
    text = " ".join(_WRAPPED.sub(r"\1", text).split()).strip(".,:;")
    return text.strip()


def _split(text: str) -> list[str]:
    """The parts of a text, split at commas outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _answers(text: str, units: Sequence[str]) -> list[str]:
    """The individual answers in a text, without units."""
    if text.startswith("\\{") and text.endswith("\\}"):
        text = text[2:-2]
    answers: list[str] = []
    for part in _split(_AND.sub(",", text)):
        for unit in units:
            spaced = r"\s*".join(re.escape(letter) for letter in unit if not letter.isspace())
            part = re.sub(rf"(?<=\S)\s*{spaced}\s*$", "", part)
        if "\\pm" in part:
            answers += [part.replace("\\pm", "+"), part.replace("\\pm", "-")]
        elif part:
            answers.append(part)
    return answers


def _paired(equal: Sequence[Sequence[bool]]) -> bool:
    """Whether all rows can be matched to different columns that are true (Kuhn's algorithm)."""
    owner: dict[int, int] = {}

    def assign(row: int, visited: set[int]) -> bool:
        for column, fits in enumerate(equal[row]):
            if fits and column not in visited:
                visited.add(column)
                if column not in owner or assign(owner[column], visited):
                    owner[column] = row
                    return True
        return False

    return all(assign(row, set()) for row in range(len(equal)))


_VERDICTS = {"yes", "no", "true", "false"}


def _equal(truth: str, answer: str, error: float | None) -> bool:
    """Whether one answer is right by any of the comparisons."""
    if "".join(truth.split()) == "".join(answer.split()) or (
        truth.casefold()
        == answer.casefold()
        in _VERDICTS  # other words keep their case: r is not R
    ):
        return True
    comparisons = [_same_interval, _same_number, _same_expression, _same_equation]
    return any(_try(comparison, truth, answer, error) for comparison in comparisons)


def _try(comparison: Callable[[str, str, float | None], bool], *arguments: Any) -> bool:
    try:
        return bool(comparison(*arguments))
    except Exception:  # noqa: BLE001  broken text, on which a parser may raise anything, is not equal
        return False


_BRACKETS = re.compile(r"[(\[].*[)\]]")


def _same_interval(truth: str, answer: str, error: float | None) -> bool:
    """Intervals, unions of intervals, and tuples."""
    truths, answers = ([part.strip() for part in text.split("\\cup")] for text in (truth, answer))
    if len(truths) != len(answers) or not all(map(_BRACKETS.fullmatch, truths + answers)):
        return False

    def same(one: str, other: str) -> bool:
        ends, other_ends = _split(one[1:-1]), _split(other[1:-1])
        return (one[0], one[-1], len(ends)) == (other[0], other[-1], len(other_ends)) and all(
            _equal(*pair, error) for pair in zip(ends, other_ends, strict=True)
        )

    return _paired([[same(one, other) for other in answers] for one in truths])


def _close(truth: Any, distance: Any, error: float | None) -> bool:
    """Whether a distance from the truth is within the tolerance."""
    return bool(abs(distance) <= (TOLERANCE * abs(truth) if error is None else 1.01 * error))


def _same_number(truth: str, answer: str, error: float | None) -> bool:
    """Decimals; percent signs are ignored here, and count in `_same_expression`."""
    number, other = (float(text.replace("%", "")) for text in (truth, answer))
    return _close(number, other - number, error)


_SUBSCRIPT = re.compile(r"([A-Za-z])?\s*_\s*(?:\{([^{}]*)\}|(\w))")


def _plain_subscript(match: re.Match[str]) -> str:
    r"""A subscript of letters and digits only; `I_0` is not the imaginary unit."""
    letter, subscript = match[1] or "", re.sub(r"\W", "", match[2] or match[3] or "")
    return f"i_{{I{subscript}}}" if letter == "I" else f"{letter}_{{{subscript}}}"


def _parsed(text: str) -> Any:
    """LaTeX as a sympy expression; letters stand for positive numbers."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from sympy import Symbol

    expression = latex2sympy(
        _SUBSCRIPT.sub(_plain_subscript, text),
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
        ),
        conversion_config=ConversionConfig(lowercase_symbols=False),
    ).doit()
    positive = {letter: Symbol(letter.name, positive=True) for letter in expression.free_symbols}
    return expression.subs(positive)


def _same_expression(truth: str, answer: str, error: float | None) -> bool:
    """Expressions, or what follows their equals sign, compared by sympy."""
    from sympy import simplify

    if "=" in truth and "=" in answer:
        names = {"".join(text.split("=")[0].split()) for text in (truth, answer)}
        if len(names) > 1 or not re.fullmatch(r"\\?\w+(\(.*\)|_.*)?", names.pop()):
            return False
    expression, other = (_parsed(text.rpartition("=")[2]) for text in (truth, answer))
    if expression.free_symbols != other.free_symbols:
        return False
    distance = expression - other
    if not expression.free_symbols:
        return _close(expression.evalf(), distance.evalf(), error)
    distance = simplify(distance)
    if distance.is_number:
        return bool(abs(distance.evalf()) <= (error or TOLERANCE))
    return distance.equals(0) is True


def _same_equation(truth: str, answer: str, error: float | None) -> bool:
    """Two equations of which one is the other times a constant."""
    from sympy import simplify

    del error  # applies to numbers only
    sides = [[_parsed(side) for side in text.split("=")] for text in (truth, answer)]
    (left, right), (other_left, other_right) = sides
    factor = simplify((left - right) / (other_left - other_right))
    return bool(factor.is_number and factor.is_finite)


RULES: dict[str, Callable[..., bool]] = {"math": math, "olympiad": olympiad}


def serve(questions: TextIO, answers: TextIO, seconds: float = SECONDS) -> None:
    """Answers questions until the input ends; the first line of output is `ready`."""
    for line in _after_ready(questions, answers):
        signal.setitimer(signal.ITIMER_REAL, seconds)  # without a handler, SIGALRM ends the process
        try:
            question = json.loads(line)
            is_right = RULES[question.pop("rules")](**question)
        except Exception:  # noqa: BLE001  an invalid question counts as a wrong answer
            is_right = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(int(is_right), file=answers, flush=True)


def _after_ready(questions: TextIO, answers: TextIO) -> TextIO:
    signal.setitimer(signal.ITIMER_REAL, START_SECONDS)
    import math_verify  # noqa: F401  takes a second, which should not count for the first question

    signal.setitimer(signal.ITIMER_REAL, 0)
    print("ready", file=answers, flush=True)
    return questions


def limit() -> None:
    """Limits the memory of this process, if the system allows it."""
    import resource  # not on Windows

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    limit()
    logging.disable(logging.CRITICAL)
    output = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print
    serve(sys.stdin, output, float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
