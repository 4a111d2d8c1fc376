"""What came of a session, for programs and for the shelf: a JSON object, a transcript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hogwild_agents.cli.common import complain
from hogwild_agents.cli.summary import figures, outcome

if TYPE_CHECKING:
    from hogwild_agents.team import Result, Step, Team


def as_record(result: Result) -> dict[str, Any]:
    """A result as JSON has it."""
    return {
        "answer": result.answer,
        "reply": result.reply,
        "finish_reason": result.finish_reason,
        "passes": result.passes,
        "reply_passes": result.reply_passes,
        "tokens": result.tokens,
        "reply_tokens": result.reply_tokens,
        "seconds": result.timings.total,
        "history": [_step(step) for step in result.steps],
        "unfinished": [_step(step) for step in result.unfinished],
        "interruptions": [asdict(check) for check in result.interruptions],
        "error": result.error,
    }


def _step(step: Step) -> dict[str, Any]:
    return {"worker": step.worker, "index": step.index, "text": step.text.strip()}


def transcript(problem: str, result: Result, team: Team) -> str:
    """A session as text: the problem, every step as the team read it, checks, answer, figures."""
    checks = [
        f"pass {check.asked}, {check.worker} [{check.index}]: {check.text.strip()} "
        + {True: "yes", False: "no"}.get(check.answer, "unclear")
        for check in result.interruptions
    ]
    unfinished = "\n\n".join(str(step).strip() for step in result.unfinished)
    named = f"{', '.join(result.workers)} ({result.layout}, {team.budget:,} passes)"
    parts = [
        f"Problem\n-------\n{problem.strip()}",
        f"Team\n----\n{named}",
        f"History\n-------\n{''.join(map(str, result.history)).strip()}",
        *([f"Unfinished\n----------\n{unfinished}"] if unfinished else []),
        *(["\n".join(["Checks", "------", *checks])] if checks else []),
        f"Outcome\n-------\n{outcome(result, team).plain}\n\n{figures(result)}",
        *([f"Error\n-----\n{result.error}"] if result.error else []),
    ]
    return "\n\n".join(parts) + "\n"


def save(file: Path | None, transcripts: Sequence[str]) -> None:
    """Writes transcripts to a file, if there is to be one; a full disk ends nothing."""
    if file is None:
        return
    try:
        file.write_text("\n\n".join(transcripts), encoding="utf-8", errors="replace")
    except OSError as error:
        complain(f"The transcript was not written: {error}")
