r"""The judge: says whether two pieces of mathematics are equal, in a process of its own.

Reads one JSON object per line, `{"rules": ..., "truth": ..., "answer": ...}`, and writes 1 or 0
for each. A question that takes too long ends the process: a signal does it, so that no library can
stand in the way. It is run by its path and imports nothing of the package: it starts in a second.

The rules `math` are those of the package math-verify. The rules `olympiad` follow the judge that
was published with OlympiadBench (arXiv 2402.14008, `eval/auto_scoring_judge.py`): answers are split
at commas and at \pm and paired in any order, each with its own tolerance; a pair is equal as text,
as intervals or tuples, as numbers, as expressions or as equations. It is stricter where that judge
lets through what is wrong, and kinder where it refuses what is right:

- 500 is not 5; a hundredfold is accepted only where one side has a percent sign;
- without a given tolerance the error may be 1e-8 of the truth, also where the truth is tiny;
- equations may differ by any constant factor, unions of intervals by their order;
- the unit that the data set names may follow an answer.
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
"""Time to judge one answer."""

MEMORY = 4 * 2**30
"""Bytes of address space for all of the process."""

START = 120.0
"""Time to import the libraries, on a slow disk."""

TOLERANCE = 1e-8


def math(truth: str, answer: str, *, alone: bool) -> bool:
    """Whether math-verify finds an answer equal to the truth, or both are the same words.

    Args:
        truth: LaTeX or text.
        answer: The same if it is `alone`, or else a text that has it somewhere.
        alone: Which of the two.
    """
    from math_verify import parse, verify

    if alone and _words(truth) == _words(answer) != "":
        return True
    gold = parse(f"${_undollared(truth)}$", parsing_timeout=None)
    given = f"${_undollared(answer)}$" if alone else answer
    return bool(verify(gold, parse(given, parsing_timeout=None), timeout_seconds=None))


def _undollared(text: str) -> str:
    return text.replace("\\$", "").replace("$", "").strip()


_WRAPPED = re.compile(
    r"\\(?:text|math|operatorname)(?:bf|it|normal|rm|sf|tt)?\s*\{~?([^{}]*)\}"
    r"|\\(?:left|right|[,;! ])"
)


def _words(text: str) -> str:
    """A text without what does not change its meaning, so that words can be compared."""
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
        truth: What is right; several answers with commas between them.
        answer: The same.
        error: How far off a number may be; several, with commas between them, for several answers.
        unit: The unit of the answers; several with commas between them.
    """
    truth, answer = _plain(truth), _plain(answer)
    if truth == answer != "":
        return True
    units = [each for each in _split(_plain(unit)) if each]
    right = _answers(truth, units)
    given = _answers(answer, units)
    errors = [float(each) if each.strip() else None for each in error.split(",")]
    if len(errors) != len(right):
        errors = errors[:1] * len(right)
    if len(right) != len(given):
        return False
    return _paired(
        [
            [_equal(one, other, allowed) for other in given]
            for one, allowed in zip(right, errors, strict=True)
        ]
    )


def _plain(text: str) -> str:
    """A text with fewer ways to write the same."""
    text = text.rpartition("\\in ")[2]
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, plain)
    text = " ".join(_WRAPPED.sub(r"\1", text).split()).strip(".,:;")
    return text.strip()


def _split(text: str) -> list[str]:
    """The parts between commas that are outside all brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def _answers(text: str, units: Sequence[str]) -> list[str]:
    """The single answers of a text, without their units."""
    if text.startswith("\\{") and text.endswith("\\}"):
        text = text[2:-2]
    answers: list[str] = []
    for part in _split(_AND.sub(",", text)):
        for unit in units:
            spaced = r"\s*".join(re.escape(sign) for sign in unit if not sign.isspace())
            part = re.sub(rf"(?<=\S)\s*{spaced}\s*$", "", part)
        if "\\pm" in part:
            answers += [part.replace("\\pm", "+"), part.replace("\\pm", "-")]
        elif part:
            answers.append(part)
    return answers


def _paired(equal: Sequence[Sequence[bool]]) -> bool:
    """Whether each row can have a column of its own in which it is true (Kuhn's algorithm)."""
    owner: dict[int, int] = {}

    def seat(row: int, tried: set[int]) -> bool:
        for column, fits in enumerate(equal[row]):
            if fits and column not in tried:
                tried.add(column)
                if column not in owner or seat(owner[column], tried):
                    owner[column] = row
                    return True
        return False

    return all(seat(row, set()) for row in range(len(equal)))


_SAID = {"yes", "no", "true", "false"}


def _equal(truth: str, answer: str, error: float | None) -> bool:
    """Whether one answer is right, in any of the ways there are."""
    if "".join(truth.split()) == "".join(answer.split()) or (
        truth.casefold() == answer.casefold() in _SAID  # r and R are different letters
    ):
        return True
    ways = [_same_interval, _same_number, _same_expression, _same_equation]
    return any(_try(way, truth, answer, error) for way in ways)


def _try(way: Callable[[str, str, float | None], bool], *given: Any) -> bool:
    try:
        return bool(way(*given))
    except Exception:  # noqa: BLE001  # whatever a parser makes of broken text, it is not equal
        return False


_BRACKETS = re.compile(r"[(\[].*[)\]]")


def _same_interval(truth: str, answer: str, error: float | None) -> bool:
    """Intervals, unions of intervals, and tuples."""
    rights, givens = ([part.strip() for part in text.split("\\cup")] for text in (truth, answer))
    if len(rights) != len(givens) or not all(map(_BRACKETS.fullmatch, rights + givens)):
        return False

    def same(right: str, given: str) -> bool:
        ends, others = _split(right[1:-1]), _split(given[1:-1])
        return (right[0], right[-1], len(ends)) == (given[0], given[-1], len(others)) and all(
            _equal(*pair, error) for pair in zip(ends, others, strict=True)
        )

    return _paired([[same(right, given) for given in givens] for right in rights])


def _close(truth: Any, distance: Any, error: float | None) -> bool:
    """Whether a distance from the truth may be."""
    return bool(abs(distance) <= (TOLERANCE * abs(truth) if error is None else 1.01 * error))


def _same_number(truth: str, answer: str, error: float | None) -> bool:
    """Decimals; a percent sign may be left out, and where it counts, expressions see to it."""
    right, given = (float(text.replace("%", "")) for text in (truth, answer))
    return _close(right, given - right, error)


_SUBSCRIPT = re.compile(r"([A-Za-z])?\s*_\s*(?:\{([^{}]*)\}|(\w))")


def _named(found: re.Match[str]) -> str:
    r"""A subscript of letters and digits only; `I_0` is no imaginary unit."""
    letter, inside = found[1] or "", re.sub(r"\W", "", found[2] or found[3] or "")
    return f"i_{{I{inside}}}" if letter == "I" else f"{letter}_{{{inside}}}"


def _parsed(text: str) -> Any:
    """LaTeX as sympy sees it; a letter stands for a positive number."""
    from latex2sympy2_extended import NormalizationConfig, latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig
    from sympy import Symbol

    expression = latex2sympy(
        _SUBSCRIPT.sub(_named, text),
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
        ),
        conversion_config=ConversionConfig(lowercase_symbols=False),
    ).doit()
    letters = {each: Symbol(each.name, positive=True) for each in expression.free_symbols}
    return expression.subs(letters)


def _same_expression(truth: str, answer: str, error: float | None) -> bool:
    """What stands behind the equals sign, if only one side has one: sympy decides."""
    from sympy import simplify

    if "=" in truth and "=" in answer:
        names = {"".join(text.split("=")[0].split()) for text in (truth, answer)}
        if len(names) > 1 or not re.fullmatch(r"\\?\w+(\(.*\)|_.*)?", names.pop()):
            return False
    right, given = (_parsed(text.rpartition("=")[2]) for text in (truth, answer))
    if right.free_symbols != given.free_symbols:
        return False
    distance = right - given
    if not right.free_symbols:
        return _close(right.evalf(), distance.evalf(), error)
    distance = simplify(distance)
    if distance.is_number:
        return bool(abs(distance.evalf()) <= (error or TOLERANCE))
    return distance.equals(0) is True


def _same_equation(truth: str, answer: str, error: float | None) -> bool:
    """Two equations: one is the other, times a constant."""
    from sympy import simplify

    del error  # it is for numbers
    sides = [[_parsed(side) for side in text.split("=")] for text in (truth, answer)]
    (left, right), (other, another) = sides
    factor = simplify((left - right) / (other - another))
    return bool(factor.is_number and factor.is_finite)


RULES: dict[str, Callable[..., bool]] = {"math": math, "olympiad": olympiad}


def serve(questions: TextIO, answers: TextIO, seconds: float = SECONDS) -> None:
    """Answers questions until there are no more; the first line says that it is ready."""
    for line in _after_ready(questions, answers):
        signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM has no handler: it ends the process
        try:
            question = json.loads(line)
            right = RULES[question.pop("rules")](**question)
        except Exception:  # noqa: BLE001  # a question it cannot answer is not answered right
            right = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(int(right), file=answers, flush=True)


def _after_ready(questions: TextIO, answers: TextIO) -> TextIO:
    signal.setitimer(signal.ITIMER_REAL, START)
    import math_verify  # noqa: F401  # it takes a second, which is not the first question's

    signal.setitimer(signal.ITIMER_REAL, 0)
    print("ready", file=answers, flush=True)
    return questions


def limit() -> None:
    """Limits the memory of this process, where the system lets us."""
    import resource  # not on Windows

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


if __name__ == "__main__":
    limit()
    logging.disable(logging.CRITICAL)
    output = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print
    serve(sys.stdin, output, float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
