"""A session's result for people to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hogwild_agents.cli.output import print_text, readable

if TYPE_CHECKING:
    from hogwild_agents.team import Result, Team
    from hogwild_agents.team.events import FinishReason

REASONS: dict[FinishReason, str] = {
    "answer": "an answer was found",
    "ended": "all workers were done",
    "budget": "the budget was used up",
    "length": "the model's context was full",
    "stopped": "it was asked to stop",
    "cancelled": "it was cancelled",
    "error": "it failed",
}
"""Why a team stopped thinking."""

_ADVICE: dict[FinishReason, str] = {
    "ended": "Try another --seed with a --temperature above 0, or describe the problem in more "
    "detail.",
    "budget": "Raise --budget.",
    "length": "Shorten the problem, or use fewer --workers.",
    "error": "Everything up to the failure is shown above.",
}


def reply_of(result: Result, team: Team) -> str:
    """The reply that a user should read; empty if there is only an answer, or nothing."""
    return result.reply.strip() if team.finisher == "reply" else ""


def passes_of(result: Result) -> int:
    """Forward passes of thinking and of writing the reply or answer."""
    return result.passes + result.reply_passes


def tokens_of(result: Result) -> int:
    """Tokens written in these passes."""
    return sum(result.tokens.values()) + result.reply_tokens


def describe_outcome(result: Result, team: Team) -> Text:
    """The reply and the answer, or why there is none and what may help."""
    reply = reply_of(result, team)
    parts = [Text(readable(reply))] if reply else []
    if result.answer is not None:
        answer = readable(str(result.answer))
        parts.append(Text.assemble(("Answer: ", "bold"), (answer, "bold green")))
    elif reply and result.finish_reason == "ended":
        parts.append(Text("The reply states no final answer.", "dim"))
    else:
        missing = "The reply states no final answer" if reply else "No answer was found"
        reason = REASONS[result.finish_reason]
        advice = _ADVICE.get(result.finish_reason, "")
        parts.append(Text(f"{missing}: {reason}. {advice}".strip(), "yellow"))
    return Text("\n\n").join(parts)


def describe_cost(result: Result) -> str:
    """Why the thinking ended, and how many passes, tokens and seconds it took."""
    total, seconds = tokens_of(result), result.timings.total
    each = [f"{name} {count:,}" for name, count in result.tokens.items()]
    each += [f"reply {result.reply_tokens:,}"] if result.reply_tokens else []
    rate = f", {total / seconds:,.1f} tokens/s" if seconds else ""
    lines = (
        [f"The thinking ended because {REASONS[result.finish_reason]}."] if result.passes else []
    )
    lines.append(
        f"{passes_of(result):,} forward passes ({result.passes:,} thinking, "
        f"{result.reply_passes:,} replying), {total:,} tokens ({', '.join(each)}), "
        f"{seconds:.1f} s{rate}"
    )
    answers = [check.answer for check in result.interruptions]
    if answers:
        yes, no = answers.count(True), answers.count(False)
        unclear = f", {len(answers) - yes - no} unclear" if yes + no < len(answers) else ""
        lines.append(f"Asked about redundant work: {yes} yes (pivots), {no} no{unclear}")
    return "\n".join(lines)


def print_summary(console: Console, result: Result, team: Team) -> None:
    """Prints the outcome of a session and its cost."""
    console.print()
    print_text(console, describe_outcome(result, team))
    console.print()
    print_text(console, Text(describe_cost(result), "dim"))


def print_comparison(console: Console, team: Result, single: Result) -> None:
    """Prints a team's result and that of one worker: a table, and a sentence on the ratio."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("workers", "forward passes", "tokens", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("answer", overflow="fold")
    for result in (team, single):
        table.add_row(
            f"{len(result.workers)}",
            f"{passes_of(result):,}",
            f"{tokens_of(result):,}",
            f"{result.timings.total:.1f}",
            Text("none" if result.answer is None else readable(str(result.answer))),
        )
    cut = [
        "one worker" if result is single else f"{len(result.workers)} workers"
        for result in (team, single)
        if result.finish_reason in ("budget", "length")
    ]
    if cut:
        sentence = f"Cut off while thinking: {' and '.join(cut)}. Raise --budget to compare."
    else:
        ratio = passes_of(team) / max(1, passes_of(single))
        sentence = f"{len(team.workers)} workers needed {ratio:.2f}x the forward passes of one."
    console.print()
    console.print(table)
    print_text(console, Text(sentence, "bold"))
