"""Puts what models wrote into a page so that it stays text.

Three walls, each of which holds alone: Jinja escapes every value; transcripts are JSON without any
character that HTML gives a meaning to, and the reader writes them as text nodes; and the page's
policy runs only the one script whose hash it names, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from hogwild_agents.evaluation.records import Transcript

_UNSAFE = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&'\u2028\u2029"}

_CONTROL: dict[int, str] = dict.fromkeys((*range(32), 127, *range(0xD800, 0xE000)), "\ufffd")
_CONTROL |= {ord(letter): letter for letter in "\t\n"} | {ord("\r"): ""}


def clean(text: str) -> str:
    """Text without what no page can hold: control characters and halves of characters."""
    return text.translate(_CONTROL)


def json_text(value: Any) -> Markup:
    """JSON that can stand in a script tag: no `<`, `>` or `&`, and ASCII only."""
    return Markup(json.dumps(value, ensure_ascii=True).translate(_UNSAFE))


def policy(script: str, style: str) -> str:
    """A Content-Security-Policy under which nothing but these two runs, and nothing is loaded."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


@dataclass(frozen=True, slots=True)
class Embedded:
    """The transcripts that a page carries.

    Attributes:
        index: What the reader offers to choose from, in the order of `texts`.
        texts: One JSON text per transcript, read when it is asked for.
        left_out: How many did not fit.
        shortened: How many were cut.
    """

    index: Markup
    texts: tuple[Markup, ...]
    left_out: int
    shortened: int


def embed(
    transcripts: Sequence[Transcript],
    strategies: Sequence[str],
    *,
    limit: int,
    letters: int,
    total: int,
) -> Embedded:
    """As many transcripts as fit, problem by problem, so that strategies can be compared.

    Args:
        transcripts: In any order.
        strategies: In the order in which they are offered.
        limit: Of transcripts.
        letters: Of one transcript's steps; what comes after is cut.
        total: Letters of all together.
    """
    order = {strategy: place for place, strategy in enumerate(strategies)}
    ordered = sorted(
        transcripts,
        key=lambda one: (one.problem, order.get(one.strategy, len(order)), one.strategy, one.seed),
    )
    entries: list[Mapping[str, Any]] = []
    texts: list[Markup] = []
    room, shortened = total, 0
    for one in ordered[:limit]:
        content, cut = _content(one, letters)
        text = json_text(content)
        if len(text) > room:
            break
        room -= len(text)
        shortened += cut
        texts.append(text)
        entries.append(
            {
                "problem": one.problem,
                "strategy": one.strategy,
                "seed": one.seed,
                "score": _finite(one.score),
            }
        )
    return Embedded(json_text(entries), tuple(texts), len(ordered) - len(texts), shortened)


def _content(one: Transcript, letters: int) -> tuple[dict[str, Any], bool]:
    steps, left, cut = [], letters, 0
    for step in one.steps:
        text, asked, reply = (_text(step.get(name)) for name in ("text", "asked", "answer"))
        if left <= 0:
            cut += len(text)
            continue
        cut += max(len(text) - left, 0)
        steps.append(
            {
                "worker": _text(step.get("worker")),
                "index": step.get("index"),
                "begun": _pass(step.get("begun")),
                "ended": _pass(step.get("ended")),
                "text": text[:left],
                "asked": asked[:left],
                "answer": reply[:left],
            }
        )
        left -= len(text) + len(asked) + len(reply)
    content = {
        "question": _text(one.question)[:letters],
        "truth": _text(one.truth)[:letters],
        "workers": [_text(name) for name in one.workers],
        "steps": steps,
        "reply": _text(one.reply)[:letters],
        "answer": None if one.answer is None else _text(one.answer)[:letters],
        "score": _finite(one.score),
        "cut": cut,
    }
    return content, bool(cut)


def _text(value: Any) -> str:
    """Any JSON value as people read it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(one, str | int | float) for one in value):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False, default=str)


def _pass(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
