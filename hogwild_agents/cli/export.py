"""A session's result for programs and files: a JSON object, a transcript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hogwild_agents.cli.output import print_error
from hogwild_agents.cli.summary import describe_cost, describe_outcome

if TYPE_CHECKING:
    from hogwild_agents.team import Result, Step, Team


def to_json(result: Result) -> dict[str, Any]:
    """A result as a JSON object."""
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


def to_transcript(problem: str, result: Result, team: Team) -> str:
    """A session as text: the problem, all steps as the workers read them, checks, outcome, cost."""
    checks = [
        f"pass {check.asked}, {check.worker} [{check.index}]: {check.text.strip()} "
        + {True: "yes", False: "no"}.get(check.answer, "unclear")
        for check in result.interruptions
    ]
    unfinished = "\n\n".join(str(step).strip() for step in result.unfinished)
    team_line = f"{', '.join(result.workers)} ({result.layout}, {team.budget:,} passes)"
    parts = [
        f"Problem\n-------\n{problem.strip()}",
        f"Team\n----\n{team_line}",
        f"History\n-------\n{''.join(map(str, result.history)).strip()}",
        *([f"Unfinished\n----------\n{unfinished}"] if unfinished else []),
        *(["\n".join(["Checks", "------", *checks])] if checks else []),
        f"Outcome\n-------\n{describe_outcome(result, team).plain}\n\n{describe_cost(result)}",
        *([f"Error\n-----\n{result.error}"] if result.error else []),
    ]
    return "\n\n".join(parts) + "\n"


def save_transcripts(file: Path | None, transcripts: Sequence[str]) -> None:
    """Writes transcripts to a file, if one was chosen; a full disk does not end the command."""
    if file is None:
        return
    try:
        file.write_text("\n\n".join(transcripts), encoding="utf-8", errors="replace")
    except OSError as error:
        print_error(f"The transcript was not written: {error}")
