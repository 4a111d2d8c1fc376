"""Selects and shortens the transcripts that a page contains."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from hogwild_agents.evaluation.records import Transcript
from hogwild_agents.evaluation.report.safety import json_for_script


@dataclass(frozen=True, slots=True)
class EmbeddedTranscripts:
    """The transcripts that a page contains.

    Attributes:
        index: Problem, strategy, seed and score of each transcript, as JSON.
        texts: One JSON text per transcript, in the order of the index.
        omitted: How many did not fit.
        shortened: How many were cut.
    """

    index: Markup
    texts: tuple[Markup, ...]
    omitted: int
    shortened: int


def embed(
    transcripts: Sequence[Transcript],
    strategies: Sequence[str],
    *,
    max_count: int,
    max_characters: int,
    max_total: int,
) -> EmbeddedTranscripts:
    """As many transcripts as fit, problem by problem, so that strategies can be compared.

    Args:
        transcripts: In any order.
        strategies: In the order in which they are shown.
        max_count: Largest number of transcripts.
        max_characters: Largest length of the steps of one transcript; the rest is cut.
        max_total: Largest length of all transcripts together.
    """
    order = {strategy: index for index, strategy in enumerate(strategies)}
    ordered = sorted(
        transcripts,
        key=lambda t: (t.problem, order.get(t.strategy, len(order)), t.strategy, t.seed),
    )
    entries: list[Mapping[str, Any]] = []
    texts: list[Markup] = []
    available, shortened = max_total, 0
    for transcript in ordered[:max_count]:
        content, is_cut = _content(transcript, max_characters)
        text = json_for_script(content)
        if len(text) > available:
            break
        available -= len(text)
        shortened += is_cut
        texts.append(text)
        entries.append(
            {
                "problem": transcript.problem,
                "strategy": transcript.strategy,
                "seed": transcript.seed,
                "score": _finite(transcript.score),
            }
        )
    omitted = len(ordered) - len(texts)
    return EmbeddedTranscripts(json_for_script(entries), tuple(texts), omitted, shortened)


def _content(transcript: Transcript, max_characters: int) -> tuple[dict[str, Any], bool]:
    steps, available, cut = [], max_characters, 0
    for step in transcript.steps:
        text, asked, answer = (_text(step.get(name)) for name in ("text", "asked", "answer"))
        if available <= 0:
            cut += len(text)
            continue
        cut += max(len(text) - available, 0)
        steps.append(
            {
                "worker": _text(step.get("worker")),
                "index": step.get("index"),
                "begun": _whole(step.get("begun")),
                "ended": _whole(step.get("ended")),
                "text": text[:available],
                "asked": asked[:available],
                "answer": answer[:available],
            }
        )
        available -= len(text) + len(asked) + len(answer)
    content = {
        "question": _text(transcript.question)[:max_characters],
        "truth": _text(transcript.truth)[:max_characters],
        "workers": [_text(name) for name in transcript.workers],
        "steps": steps,
        "reply": _text(transcript.reply)[:max_characters],
        "answer": None if transcript.answer is None else _text(transcript.answer)[:max_characters],
        "score": _finite(transcript.score),
        "cut": cut,
    }
    return content, bool(cut)


def _text(value: Any) -> str:
    """Any JSON value as readable text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(
        isinstance(item, str | int | float) for item in value
    ):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False, default=str)


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
